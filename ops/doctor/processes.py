"""Checks of Sangha's own processes: the web process and the workers."""

import http.client
from collections import Counter
from collections.abc import Sequence

import psycopg

from models.platform.settings import Settings
from ops.doctor.finding import RUN_UP, Finding
from ops.messages import describe_error
from ops.web_connection import request_status

POOLS_OF_LIVING_WORKERS = "SELECT pools FROM workers WHERE seen_at > now() - make_interval(secs => %s)"


def web(settings: Settings) -> Finding:
    """Check that a web process answers /readyz."""
    address = f"{settings.host}:{settings.port}"
    try:
        status = request_status(settings, "/readyz", timeout=5)
    except (OSError, http.client.HTTPException) as error:
        detail = f"no answer from {address} ({describe_error(error)})"
        return Finding("warn", "web", detail, f"{RUN_UP} or `sangha web`")
    if status == 200:
        return Finding("ok", "web", f"ready at {address}")
    remedy = f"see `curl {address}/readyz`, or choose another SANGHA_PORT"
    return Finding("FAIL", "web", f"{address}/readyz answers {status}", remedy)


def workers(settings: Settings) -> Finding:
    """Check that every pool has a worker."""
    from models.jobs.catalogue import POOLS
    from pipelines.inference.openai import pool_models

    counts = Counter(pool for pools in pools_of_living_workers(settings) for pool in pools)
    pools = [pool for pool in POOLS if pool != "upstream" or pool_models(settings)]
    unserved = [pool for pool in pools if not counts[pool]]
    detail = ", ".join(f"{pool} {counts[pool]}" for pool in pools)
    if unserved:
        return Finding("warn", "workers", detail, f"{RUN_UP} or `sangha worker {' '.join(unserved)}`")
    return Finding("ok", "workers", detail)


def pools_of_living_workers(settings: Settings) -> Sequence[Sequence[str]]:
    """Return the pools of each worker with a recent heartbeat; none where the database cannot be reached."""
    from models.jobs.workers import SILENCE_LIMIT

    try:
        with psycopg.connect(settings.postgres_dsn, connect_timeout=3) as connection:
            return [row[0] for row in connection.execute(POOLS_OF_LIVING_WORKERS, (SILENCE_LIMIT,))]
    except psycopg.Error:
        return []
