"""KEDA scales workers by the promised wait: its statement runs on the real schema and agrees with the forecast."""

import hashlib
import math
import re

import psycopg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.jobs import workers
from models.jobs.catalogue import POOLS, pool_of
from models.jobs.outbox import SHARDS
from models.platform.database import fetch_one
from models.serving.forecast import wait_behind
from models.serving.queues import model_queue
from models.serving.served_models import ModelDescription
from models.serving.served_models import register as register_model
from models.serving.state import QueueState
from tasks import billing, delivery, maintenance, memory, recall, reporting, tools
from tests.k8s.helm import CHART, render, render_all

STORE = {"existingSecret": "s", "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"}, "autoscaling": {"enabled": True}}


def triggers(scaled, kind="postgresql"):
    """Return the metadata of the triggers of a kind."""
    return [each["metadata"] for each in scaled["spec"]["triggers"] if each["type"] == kind]


def test_the_threads_of_pools_are_those_of_the_code():
    threads = {
        "recall": {"recall": recall.THREADS},
        "tools": {"tools": tools.THREADS},
        "memory": memory.THREADS,
        "billing": {"billing": billing.THREADS},
        "reporting": reporting.THREADS,
        "delivery": {
            "delivery": delivery.THREADS,
            "webhooks": delivery.WEBHOOK_THREADS,
            "webhooks_batch": delivery.WEBHOOK_THREADS,
        },
        "maintenance": {"maintenance": maintenance.THREADS},
    }

    assert yaml.safe_load((CHART / "files" / "pools.yaml").read_text()) == threads
    assert {pool: set(queues) for pool, queues in threads.items()} == {
        pool: set(queues) for pool, queues in POOLS.items() if pool not in ("inference", "upstream")
    }


NAMES = ["llama", "meta/llama:3.1", "Qwen2.5-7B@q4", "a_b.c", "a+b"]


def test_the_queues_of_models_are_those_of_the_code():
    # Given one model after the other as the default, beside all others
    models = {
        hashlib.sha256(name.encode()).hexdigest()[:8].join("mm"): {"name": name, "file": "/models/a.gguf"}
        for name in NAMES
    }
    for default, rendered in zip(
        NAMES, render_all([{**STORE, "models": models, "defaultModel": name} for name in NAMES]), strict=True
    ):
        # Then the triggers of each look at its queue and the twin for background work
        for key, model in models.items():
            scaled = rendered.of("ScaledObject")[f"sangha-worker-inference-{key}"]
            queue = model_queue(model["name"], default)
            assert [each["queueName"] for each in triggers(scaled, "rabbitmq")] == [queue, f"{queue}_batch"]
            assert f"('{queue}', 5), ('{queue}_batch', 300)" in triggers(scaled)[0]["query"]


def test_the_only_model_is_the_default_one():
    (scaled,) = [
        each
        for name, each in render({**STORE, "models": {"llama": {}}}).of("ScaledObject").items()
        if name.endswith("inference-llama")
    ]

    assert [each["queueName"] for each in triggers(scaled, "rabbitmq")] == ["inference", "inference_batch"]


def test_all_queues_are_watched(examples):
    for name in ("production", "in-chart-dependencies"):
        watched = {
            trigger["queueName"]
            for scaled in examples[name].of("ScaledObject").values()
            for trigger in triggers(scaled, "rabbitmq")
        }
        assert watched == {queue for queues in POOLS.values() for queue in queues}
        assert None not in {pool_of(queue) for queue in watched}


def test_workers_with_gpus_are_removed_slowly_and_to_zero(examples):
    scaled = examples["gpu"].of("ScaledObject")
    gpu, light = scaled["sangha-worker-inference-llama-70b"]["spec"], scaled["sangha-worker-tools"]["spec"]
    behaviour = [each["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] for each in (gpu, light)]

    assert (gpu["minReplicaCount"], gpu["maxReplicaCount"], light["minReplicaCount"]) == (0, 4, 1)
    assert gpu["cooldownPeriod"] > light["cooldownPeriod"]
    slow, quick = (each["scaleDown"]["stabilizationWindowSeconds"] for each in behaviour)
    assert slow > quick
    assert behaviour[0]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]


def test_a_rollout_needs_no_spare_gpu(examples):
    strategy = examples["gpu"].of("Deployment")["sangha-worker-inference-llama-70b"]["spec"]["strategy"]

    assert strategy == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


# The statement


def query_of(promise="5", batch="300", *, pool=None):
    """Return the statement for the default model, or for a pool."""
    scaling = {"targetWaitSeconds": float(promise), "batchTargetWaitSeconds": float(batch)}
    if pool is None:
        rendered = render({**STORE, "models": {"llama": {"autoscaling": scaling}}})
        return triggers(rendered.of("ScaledObject")["sangha-worker-inference-llama"])[0]["query"]
    rendered = render({**STORE, "workers": {pool: {"enabled": True, "autoscaling": scaling}}})
    return triggers(rendered.of("ScaledObject")[f"sangha-worker-{pool}"])[0]["query"]


@pytest.fixture(scope="module")
def query():
    """The statement for the default model, which promises 5 seconds, and 300 for background work."""
    return query_of()


def needed(database, query):
    """Run a statement as KEDA does: without parameters."""
    with database.connection() as connection:
        return fetch_one(connection, query)["needed_threads"]


def add(job_store, count, condition, queue="inference"):
    """Add jobs of one account with these columns."""
    account = job_store.create_account()
    for _ in range(count):
        job_store.update(job_store.enqueue(account), f"queue = '{queue}', {condition}")


RUNNING = "state = 'running', worker = 'w', claim_id = gen_random_uuid(), attempt = 1"


def register(job_store, *, mean_seconds, threads=4, pid=1):
    with job_store.database.connection() as connection:
        workers.register(
            connection, f"w{pid}", host="here", pid=pid, pools=["inference"], threads={"inference": threads},
            mean_seconds={"inference": mean_seconds},
        )  # fmt: skip


def test_nothing_is_needed_where_nothing_waits(empty_job_store, query):
    assert needed(empty_job_store.database, query) == 0


def test_the_needed_threads_keep_the_promise_of_the_forecast(empty_job_store, query):
    # Given attempts of 20 seconds, 3 running jobs and 9 that wait
    register(empty_job_store, mean_seconds=20.0)
    add(empty_job_store, 3, RUNNING)
    add(empty_job_store, 9, "state = 'queued'")

    # When KEDA asks
    threads = math.ceil(needed(empty_job_store.database, query))

    # Then with so many threads the last of them waits 5 seconds at most, and with one less it waits longer
    assert threads == math.ceil(12 * 20 / 25) == 10
    assert wait_behind(QueueState(threads, 9, 3, 20.0), 8) <= 5
    assert wait_behind(QueueState(threads - 1, 9, 3, 20.0), 8) > 5


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.01, 900), st.floats(0.1, 900))
def test_the_formula_is_the_smallest_number_that_keeps_the_promise(running, waiting, mean, promise):
    needed_threads = max(1, math.ceil(round((running + waiting) * mean / (mean + promise), 9)))

    def wait(threads):
        return wait_behind(QueueState(threads, waiting, running, mean), waiting - 1)

    assert wait(needed_threads) <= promise * (1 + 1e-6)
    assert needed_threads == 1 or wait(needed_threads - 1) > promise * (1 - 1e-6)


def test_jobs_that_cannot_run_now_need_no_thread(empty_job_store, query):
    add(empty_job_store, 1, "state = 'scheduled', run_at = now() + interval '1 hour'")
    add(empty_job_store, 1, "state = 'queued', blocked = true")
    add(empty_job_store, 1, "state = 'waiting'")
    add(empty_job_store, 1, "state = 'dead'")
    add(empty_job_store, 1, "state = 'queued'", queue="tools")

    assert needed(empty_job_store.database, query) == 0


def test_without_a_measurement_ten_seconds_are_assumed(empty_job_store, query):
    add(empty_job_store, 3, "state = 'queued'")

    assert needed(empty_job_store.database, query) == pytest.approx(3 * 10 / 15)


def test_dead_and_silent_workers_measure_nothing(empty_job_store, query):
    register(empty_job_store, mean_seconds=1000.0, pid=0)
    register(empty_job_store, mean_seconds=1000.0, pid=2)
    with empty_job_store.database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '8 seconds' WHERE name = 'w2'")
    add(empty_job_store, 3, "state = 'queued'")

    assert needed(empty_job_store.database, query) == pytest.approx(2)


def test_background_work_needs_fewer_threads(empty_job_store, query):
    add(empty_job_store, 31, "state = 'queued'", queue="inference_batch")

    assert needed(empty_job_store.database, query) == pytest.approx(31 * 10 / 310)


def test_the_statement_of_upstream_sums_all_endpoints(empty_job_store):
    # Given two endpoints, of which one has two models, and jobs for both of them and for a local model
    for model, endpoint in (("small", "groq"), ("large", "groq"), ("large", "corp")):
        with empty_job_store.database.connection() as connection:
            register_model(connection, ModelDescription(model, endpoint=endpoint), f"upstream.{endpoint}")
    add(empty_job_store, 3, "state = 'queued'", queue="upstream.groq")
    add(empty_job_store, 31, "state = 'queued'", queue="upstream.corp_batch")
    add(empty_job_store, 5, "state = 'queued'")

    assert needed(empty_job_store.database, query_of(pool="upstream")) == pytest.approx(3 * 10 / 15 + 1)


def test_every_statement_of_the_examples_runs(examples, empty_database):
    queries = {
        trigger["query"]
        for example in examples.values()
        for scaled in example.of("ScaledObject").values()
        for trigger in triggers(scaled)
    }

    assert len(queries) > 12
    assert {needed(empty_database, query) for query in queries} == {0}


BLOCKED = """
INSERT INTO jobs (id, kind, queue, account_id, state, blocked)
SELECT 'blocked_' || n, 'turn.run', 'inference', %s, 'queued', true FROM generate_series(1, 20000) AS n
"""


def test_the_statement_reads_no_jobs_that_are_blocked(empty_job_store, query):
    # Given jobs of which nearly all wait behind others
    add(empty_job_store, 3, "state = 'queued'")
    with empty_job_store.database.connection() as connection:
        connection.execute(BLOCKED, (empty_job_store.create_account(),))
        connection.execute("ANALYZE jobs")

        # When the statement runs
        rows = connection.execute("EXPLAIN (ANALYZE, COSTS off, TIMING off) " + query).fetchall()

    # Then it reads the indexes of the outbox, and none of them
    plan = "\n".join(str(next(iter(row.values()))) for row in rows)
    assert set(re.findall(r"(?:on|using) (jobs\w*)", plan)) <= {"jobs", "jobs_due", "jobs_lane_in_flight"}
    assert "Seq Scan on jobs" not in plan
    assert "Rows Removed" not in plan
    assert SHARDS == 4


def test_a_role_that_reads_no_content_can_run_every_statement(examples, empty_database):
    role = (CHART / "files" / "keda-role.sql").read_text()
    queries = [
        trigger["query"]
        for scaled in examples["several-models"].of("ScaledObject").values()
        for trigger in triggers(scaled)
    ]
    with empty_database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute(role)
        connection.execute("SET LOCAL ROLE sangha_keda")
        for query in queries:
            connection.execute(query)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT arguments FROM jobs")
