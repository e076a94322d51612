"""Circuit breakers: a row for each endpoint, shared by all processes.

    closed ──too many failures──► open ──cooldown over──► half_open ──the probe succeeds──► closed
                                   ▲                          │
                                   └──────the probe fails─────┘

A breaker counts the last WINDOW requests. It opens once at least MIN_FAILURES of them and half of them have failed,
after TIMEOUTS_IN_A_ROW, or at once where the endpoint rejects its credentials. While it counts no failure, successes
cost no statement: each process keeps its own, and writes them with the first failure. From then on each success is
written, until the window has forgotten the failures. So an endpoint that fails from some moment on gets at most
MOST_FAILURES failing requests before the breaker opens, and those that were begun by then, whatever the number of
processes (docs/decisions/0069-count-requests-not-seconds.md).

A failover may lose the last change. A lost opening is repeated by the next failures; a lost closing by another probe.
All times are the database's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from models.jobs.leases import LEASE
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

BreakerState = Literal["closed", "open", "half_open"]

#: What a request failed with: a kind of `pipelines.inference.openai.endpoint_errors`, of which these are special.
#: Kinds that say nothing about other requests, and those after which none can succeed.
NOT_COUNTED: frozenset[str] = frozenset({"rate_limited", "bad_request", "content_filter"})
OPENS_AT_ONCE: frozenset[str] = frozenset({"auth", "quota"})

#: Requests that are counted; how many of them have to fail, and half of them at least; and time-outs without a success
#: in between.
WINDOW = 20
MIN_FAILURES = 5
TIMEOUTS_IN_A_ROW = 3

#: Failures after which any breaker is open, if nothing succeeds.
MOST_FAILURES = WINDOW // 2

#: Seconds until the first probe, doubled after each one that fails, and the longest.
FIRST_COOLDOWN, LONGEST_COOLDOWN = 5.0, 300.0

#: Seconds within which a worker has to begin a probe. Afterwards it lasts while its worker is alive.
PROBE_START = 15.0

#: Seconds for which an endpoint that answers 429 is left alone: where it does not say, and at most.
DEFAULT_SATURATION, LONGEST_SATURATION = 5.0, 3600.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """A row of `circuit_breakers`, with what the database's clock makes of it.

    forced_state    by an operator; it overrides the state
    openings        in a row
    probe_in        seconds until a probe may begin; 0: now
    saturated_for   seconds for which the endpoint has asked to be left alone
    has_probe       whether a worker that is alive runs the probe
    """

    upstream: str
    breaker_state: BreakerState = "closed"
    forced_state: Literal["closed", "open"] | None = None
    open_reason: str | None = None
    changed_at: datetime | None = None
    probe_at: datetime | None = None
    probe_job_id: str | None = None
    openings: int = 0
    window_requests: int = 0
    window_failures: int = 0
    timeouts_in_a_row: int = 0
    saturated_until: datetime | None = None
    probe_in: float = 0.0
    saturated_for: float = 0.0
    has_probe: bool = False

    @property
    def state(self) -> BreakerState:
        """The state that counts: an operator's, or else its own."""
        return self.forced_state or self.breaker_state

    @property
    def accepts(self) -> bool:
        """Whether the endpoint may be asked."""
        return self.state == "closed" and not self.saturated_for

    @property
    def wants_probe(self) -> bool:
        """Whether a job should probe the endpoint now."""
        due = self.probe_in <= 0 and not self.saturated_for
        return due and self.forced_state is None and self.breaker_state != "closed" and not self.has_probe

    @property
    def is_probed(self) -> bool:
        """Whether a job probes the endpoint, or is about to."""
        return self.forced_state is None and self.breaker_state == "half_open" and (self.has_probe or self.probe_in > 0)

    @property
    def is_sound(self) -> bool:
        """Whether it counts no failure."""
        return self.breaker_state == "closed" and not (self.window_failures or self.timeouts_in_a_row)


# Whether a worker that is alive runs the job that probes.
HAS_PROBE = f"""EXISTS (
    SELECT FROM jobs JOIN workers ON workers.name = jobs.worker
    WHERE jobs.id = probe_job_id AND jobs.state = 'running' AND seen_at > now() - interval '{LEASE} seconds')"""

STORED = columns(Breaker, omit=("probe_in", "saturated_for", "has_probe"))
SELECT = f"""
SELECT {STORED},
       coalesce(greatest(0, extract(epoch FROM probe_at - now())), 0)::float AS probe_in,
       coalesce(greatest(0, extract(epoch FROM saturated_until - now())), 0)::float AS saturated_for,
       breaker_state = 'half_open' AND {HAS_PROBE} AS has_probe
FROM circuit_breakers
"""


def read(connection: Connection, upstream: str) -> Breaker:
    """Return the breaker of an endpoint: a closed one if there is no row yet."""
    row = fetch_one(connection, SELECT + "WHERE upstream = %(upstream)s", {"upstream": upstream})
    return Breaker(**row) if row else Breaker(upstream)


def list_breakers(connection: Connection) -> dict[str, Breaker]:
    """Return the breakers by endpoint; those that have never counted a failure may be missing."""
    return {row["upstream"]: Breaker(**row) for row in fetch_all(connection, SELECT + "ORDER BY upstream")}


# One probe at a time: a second process that waits for the row's lock sees that it is half open. A probe that no worker
# has begun in time, or whose worker has died, is replaced.
BEGIN_PROBE = f"""
UPDATE circuit_breakers SET
    breaker_state = 'half_open', probe_job_id = %(job_id)s, probe_at = now() + make_interval(secs => %(start)s),
    changed_at = CASE breaker_state WHEN 'half_open' THEN changed_at ELSE now() END
WHERE upstream = %(upstream)s AND forced_state IS NULL AND breaker_state <> 'closed'
  AND probe_at <= now() AND coalesce(saturated_until <= now(), true)
  AND NOT (breaker_state = 'half_open' AND {HAS_PROBE})
RETURNING upstream
"""


def begin_probe(connection: Connection, upstream: str, job_id: str) -> bool:
    """Let a job probe the endpoint. Returns False if it is not time, or another job does."""
    parameters = {"upstream": upstream, "job_id": job_id, "start": PROBE_START}
    return fetch_one(connection, BEGIN_PROBE, parameters) is not None


# Another job may probe at once.
END_PROBE = """
UPDATE circuit_breakers SET breaker_state = 'open', probe_job_id = NULL, probe_at = now()
WHERE upstream = %(upstream)s AND breaker_state = 'half_open' AND probe_job_id = %(job_id)s
"""


def end_probe(connection: Connection, upstream: str, job_id: str) -> None:
    """Let another job probe: this one has not asked the endpoint."""
    connection.execute(END_PROBE, {"upstream": upstream, "job_id": job_id})


def record_success(connection: Connection, upstream: str, job_id: str, successes: int = 1) -> None:
    """Count successes, and close the breaker if the job was its probe."""
    with connection.transaction():
        breaker = _lock(connection, upstream)
        if breaker.breaker_state == "closed":
            _store(connection, count_successes(breaker, successes))
        elif is_probe(breaker, job_id):
            _store(connection, closed(breaker))


def record_failure(
    connection: Connection,
    upstream: str,
    job_id: str,
    kind: str,
    *,
    successes: int = 0,
    retry_after: float | None = None,
) -> Breaker:
    """Count a failure, and return the breaker after it.

    successes    of this process, which the row does not count yet: they came before its first failure
    retry_after  seconds for which the endpoint wants to be left alone
    """
    with connection.transaction():
        before = _lock(connection, upstream)
        after = after_failure(before, job_id, kind, successes)
        if kind == "rate_limited":
            _saturate(connection, upstream, retry_after)
        if after != before:
            _store(connection, after)
        connection.execute(COUNT_FAILURE, {"upstream": upstream, "kind": kind})
    return read(connection, upstream)


# The breaker's row is locked, so that requests of an endpoint wait for each other there only.
COUNT_FAILURE = """
INSERT INTO endpoint_failures AS counted (failed_upstream, failure_kind, failed_requests)
VALUES (%(upstream)s, %(kind)s, 1)
ON CONFLICT (failed_upstream, failure_kind) DO UPDATE SET failed_requests = counted.failed_requests + 1
"""

FAILURES = "SELECT failed_upstream, failure_kind, failed_requests FROM endpoint_failures"


def failures_by_kind(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the failed requests since the installation, by endpoint and kind."""
    rows = fetch_all(connection, FAILURES)
    return {(row["failed_upstream"], row["failure_kind"]): row["failed_requests"] for row in rows}


def after_failure(breaker: Breaker, job_id: str, kind: str, successes: int = 0) -> Breaker:
    """Return the breaker after a failure. Those of requests that were begun before it opened change nothing."""
    if is_probe(breaker, job_id):
        return closed(breaker) if kind in NOT_COUNTED else _opened(breaker, kind)
    if kind in NOT_COUNTED or breaker.breaker_state != "closed":
        return breaker
    counted = count_failure(count_successes(breaker, successes) if breaker.is_sound else breaker, kind)
    return _opened(counted, kind) if kind in OPENS_AT_ONCE or _fails(counted) else counted


def is_probe(breaker: Breaker, job_id: str) -> bool:
    """Return whether the job probes the endpoint."""
    return breaker.breaker_state == "half_open" and breaker.probe_job_id == job_id


def count_successes(breaker: Breaker, successes: int) -> Breaker:
    """Return the breaker after successes: the window holds the latest WINDOW requests, and the same part of failures.

    Rounded down, so that failures are forgotten.
    """
    if successes == 0:
        return breaker
    requests = breaker.window_requests + successes
    failures = breaker.window_failures * WINDOW // requests if requests > WINDOW else breaker.window_failures
    return replace(breaker, window_requests=min(requests, WINDOW), window_failures=failures, timeouts_in_a_row=0)


def count_failure(breaker: Breaker, kind: str) -> Breaker:
    """Return the breaker after a failure: the part of failures is rounded up, so that each one raises their number."""
    requests, failures = breaker.window_requests + 1, breaker.window_failures + 1
    if requests > WINDOW:
        requests, failures = WINDOW, -(-failures * WINDOW // requests)
    timeouts = breaker.timeouts_in_a_row + 1 if kind == "timeout" else breaker.timeouts_in_a_row
    return replace(breaker, window_requests=requests, window_failures=failures, timeouts_in_a_row=timeouts)


def closed(breaker: Breaker) -> Breaker:
    """Return the breaker closed, without a memory of failures."""
    return replace(
        breaker, breaker_state="closed", probe_at=None, probe_job_id=None, openings=0,
        window_requests=0, window_failures=0, timeouts_in_a_row=0,
    )  # fmt: skip


def cooldown(openings: int) -> float:
    """Return the seconds until a probe after so many openings in a row."""
    return float(min(FIRST_COOLDOWN * 2 ** min(openings - 1, 16), LONGEST_COOLDOWN))


def _opened(breaker: Breaker, kind: str) -> Breaker:
    openings = breaker.openings + 1
    return replace(
        breaker, breaker_state="open", open_reason=kind, probe_job_id=None, openings=openings,
        probe_in=cooldown(openings), window_requests=0, window_failures=0, timeouts_in_a_row=0,
    )  # fmt: skip


def _fails(breaker: Breaker) -> bool:
    """Return whether the counted requests open the breaker."""
    failures = breaker.window_failures
    rate_reached = failures >= MIN_FAILURES and 2 * failures >= breaker.window_requests
    return rate_reached or breaker.timeouts_in_a_row >= TIMEOUTS_IN_A_ROW


INSERT = "INSERT INTO circuit_breakers (upstream) VALUES (%(upstream)s) ON CONFLICT (upstream) DO NOTHING"
LOCK = f"SELECT {STORED} FROM circuit_breakers WHERE upstream = %(upstream)s FOR NO KEY UPDATE"


def _lock(connection: Connection, upstream: str) -> Breaker:
    """Lock the breaker's row, which is inserted if there is none, and return it. Needs a transaction."""
    row = fetch_one(connection, LOCK, {"upstream": upstream})
    if row is None:
        connection.execute(INSERT, {"upstream": upstream})
        row = fetch_one(connection, LOCK, {"upstream": upstream})
    assert row is not None
    return Breaker(**row)


STORE = """
UPDATE circuit_breakers SET
    breaker_state = %(breaker_state)s, open_reason = %(open_reason)s, openings = %(openings)s,
    probe_at = CASE %(breaker_state)s WHEN 'open' THEN now() + make_interval(secs => %(probe_in)s)
                                      WHEN 'closed' THEN NULL ELSE probe_at END,
    probe_job_id = %(probe_job_id)s,
    changed_at = CASE breaker_state WHEN %(breaker_state)s THEN changed_at ELSE now() END,
    window_from = CASE WHEN window_requests = 0 THEN now() ELSE window_from END,
    window_requests = %(window_requests)s, window_failures = %(window_failures)s,
    timeouts_in_a_row = %(timeouts_in_a_row)s
WHERE upstream = %(upstream)s
"""


def _store(connection: Connection, breaker: Breaker) -> None:
    connection.execute(STORE, _parameters(breaker))


def _parameters(breaker: Breaker) -> Mapping[str, Any]:
    names = (
        "upstream", "breaker_state", "open_reason", "openings", "probe_in", "probe_job_id", "window_requests",
        "window_failures", "timeouts_in_a_row",
    )  # fmt: skip
    return {name: getattr(breaker, name) for name in names}


SATURATE = """
UPDATE circuit_breakers
SET saturated_until = greatest(saturated_until, now() + make_interval(secs => %(seconds)s))
WHERE upstream = %(upstream)s
"""


def _saturate(connection: Connection, upstream: str, retry_after: float | None) -> None:
    seconds = DEFAULT_SATURATION if retry_after is None else min(max(retry_after, 0.0), LONGEST_SATURATION)
    connection.execute(SATURATE, {"upstream": upstream, "seconds": seconds})


FORCE = "UPDATE circuit_breakers SET forced_state = %(state)s WHERE upstream = %(upstream)s"
FORGET_SATURATION = "UPDATE circuit_breakers SET saturated_until = NULL WHERE upstream = %(upstream)s"


def force(connection: Connection, upstream: str, state: Literal["closed", "open"] | None) -> None:
    """Keep a breaker open or closed, or let it decide again. One that is kept closed forgets its failures."""
    with connection.transaction():
        breaker = _lock(connection, upstream)
        connection.execute(FORCE, {"upstream": upstream, "state": state})
        if state == "closed":
            _store(connection, closed(breaker))
            connection.execute(FORGET_SATURATION, {"upstream": upstream})
