"""Register models, and find the one that a request names."""

import pytest

from models.jobs import workers
from models.platform.errors import NotFound
from models.serving.queues import endpoint_queue, model_queue
from models.serving.served_models import ModelDescription, delete_forgotten, read_models, register

SMALL, LARGE = ModelDescription("small", context=512), ModelDescription("large", context=8192)


def serve(database, description, queue, *, slots=2, name="worker"):
    """Register a model as its worker does."""
    with database.transaction() as connection:
        register(connection, description, queue)
        workers.register(
            connection, name, host="here", pid=1, pools=["inference"], threads={queue: slots},
            served=[{"model": description.name, "endpoint": description.endpoint, "queue": queue, "slots": slots}],
        )  # fmt: skip


def models(database, fallback=SMALL, **options):
    with database.connection() as connection:
        return read_models(connection, fallback, **options)


def test_the_default_model_is_known_before_its_worker_has_described_it(empty_database):
    known = models(empty_database)
    assert [model.id for model in known] == ["small"]
    assert (known.default.queue, known.default.is_available) == ("inference", False)


def test_a_served_model_is_described_by_its_worker(empty_database):
    serve(empty_database, ModelDescription("small", context=4096), "inference", slots=3)
    default = models(empty_database).find("default")
    assert (default.description.context, default.slots) == (4096, 3)


def test_each_model_is_found_by_its_name_and_has_a_queue(empty_database):
    serve(empty_database, SMALL, model_queue("small", "small"), name="w1")
    serve(empty_database, LARGE, model_queue("large", "small"), name="w2")
    known = models(empty_database)
    assert known.resolve("large").queue == "inference.large"
    assert known.resolve(None) == known.resolve("default") == known.resolve("small")


def test_an_unknown_name_is_rejected_with_the_names_there_are(empty_database):
    serve(empty_database, LARGE, "inference.large")
    with pytest.raises(NotFound, match=r"'tiny' does not exist. Available models are: 'small', 'large', 'default'"):
        models(empty_database, explicit=True).resolve("tiny")


def test_the_only_known_model_is_the_default_unless_another_one_is_named(empty_database):
    serve(empty_database, LARGE, "inference.large")
    assert models(empty_database).default.id == "large"
    assert models(empty_database, explicit=True).default.id == "small"


def test_the_model_that_workers_serve_as_the_default_one_is_the_default_also_for_processes_with_other_settings(
    empty_database,
):
    serve(empty_database, LARGE, "inference")
    assert models(empty_database).default.id == "large"
    assert models(empty_database, explicit=True).default.id == "small"


def test_a_worker_of_the_previous_version_serves_the_default_model(empty_database):
    serve(empty_database, LARGE, "inference.large")
    with empty_database.connection() as connection:
        workers.register(connection, "old", host="here", pid=2, pools=["inference"], threads={"inference": 4})
    assert (models(empty_database).default.id, models(empty_database).default.slots) == ("small", 4)


def test_a_model_without_a_live_worker_is_known_and_unavailable(empty_database):
    serve(empty_database, LARGE, "inference.large")
    with empty_database.connection() as connection:
        workers.unregister(connection, "worker")
    assert not models(empty_database).resolve("large").is_available


def test_a_model_without_a_worker_is_forgotten_after_a_week(empty_database):
    serve(empty_database, LARGE, "inference.large")
    with empty_database.connection() as connection:
        connection.execute("UPDATE served_models SET described_at = now() - interval '8 days'")
        assert delete_forgotten(connection) == 1
    assert models(empty_database).find("large") is None


def test_a_new_default_model_takes_the_queue_of_the_previous_one(empty_database):
    serve(empty_database, SMALL, "inference")
    serve(empty_database, LARGE, "inference")
    known = models(empty_database, LARGE)
    assert (known.resolve("large").queue, known.resolve("small").queue) == ("inference", "inference.small")


def test_jobs_of_a_new_default_model_move_to_the_queue_that_its_worker_serves(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    jobs = {queue: job_store.enqueue(account) for queue in ("inference.large", "inference.large_batch", "inference.x")}
    for queue, job_id in jobs.items():
        job_store.update(job_id, f"queue = '{queue}', published_at = now()")

    serve(job_store.database, LARGE, "inference")

    moved = {queue: job_store.job(job_id) for queue, job_id in jobs.items()}
    assert [job.queue for job in moved.values()] == ["inference", "inference_batch", "inference.x"]
    assert [job.published_at is None for job in moved.values()] == [True, True, False]


def test_a_plain_name_is_the_local_model_and_a_path_that_of_an_endpoint(empty_database):
    serve(empty_database, LARGE, "inference.large", name="w1")
    for model in ("large", "huge"):
        serve(empty_database, ModelDescription(model, endpoint="groq"), endpoint_queue("groq"), name=f"groq {model}")
    known = models(empty_database, LARGE)
    assert [model.id for model in known] == ["large", "huge", "groq/large"]
    assert known.resolve("groq/huge") == known.resolve("huge")
    assert known.resolve("groq/large").description.endpoint == "groq"
    assert known.resolve("large").description.endpoint == ""
