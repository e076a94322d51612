"""Jobs in queues that no worker serves."""

import pytest
from psycopg.types.json import Jsonb

from models.platform.ids import new_id
from models.serving.stranded import list_unserved, move_stranded


@pytest.fixture
def database(database):
    """The database without workers and models, also afterwards."""
    delete_workers_and_models(database)
    yield database
    delete_workers_and_models(database)


def delete_workers_and_models(database):
    with database.connection() as connection:
        connection.execute("DELETE FROM workers")
        connection.execute("DELETE FROM served_models")


def serve(database, model, queue):
    """Register a worker that serves a model in a queue, and its twin."""
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO workers (name, host, pid, pools, queues, threads, served)"
            " VALUES (%s, 'host', 1, '{inference}', %s, 1, %s)",
            (model, [queue, f"{queue}_batch"], Jsonb([{"model": model, "endpoint": "", "queue": queue, "slots": 1}])),
        )


def enqueue(job_store, queue, model):
    job_id = job_store.enqueue(job_store.create_account(), arguments={"model": model})
    job_store.update(job_id, f"queue = '{queue}', published_at = now()")
    return job_id


def move(database):
    with database.connection() as connection:
        return move_stranded(connection)


def test_jobs_of_the_former_default_model_move_to_its_queue(job_store, database):
    # Given jobs of a model that was the default
    turn, background = enqueue(job_store, "inference", "small"), enqueue(job_store, "inference_batch", "small")

    # When only a worker that serves it under its name is left
    serve(database, "small", "inference.small")

    # Then they are moved, to be published again
    assert move(database) >= 2  # other tests may have left some
    assert job_store.job(turn).queue == "inference.small"
    assert job_store.job(background).queue == "inference.small_batch"
    assert job_store.job(turn).published_at is None


def test_jobs_of_the_new_default_model_move_to_the_queue_of_the_default(job_store, database):
    job_id = enqueue(job_store, "inference.small", "small")
    serve(database, "small", "inference")

    move(database)

    assert job_store.job(job_id).queue == "inference"


def test_jobs_of_another_model_stay(job_store, database):
    job_id = enqueue(job_store, "inference", "large")
    serve(database, "small", "inference.small")

    move(database)

    assert job_store.job(job_id).queue == "inference"


def test_jobs_in_a_queue_with_a_worker_stay(job_store, database):
    """It moves what it claims: a worker that has just started may not have registered its model."""
    job_id = enqueue(job_store, "inference", "small")
    serve(database, "small", "inference.small")
    serve(database, "large", "inference")

    move(database)

    assert job_store.job(job_id).queue == "inference"


def test_queues_without_a_worker_are_listed(job_store, database):
    enqueue(job_store, "inference.large", "large")
    enqueue(job_store, "inference.small", "small")
    serve(database, "small", "inference.small")

    with database.connection() as connection:
        unserved = list_unserved(connection)

    assert unserved["inference.large"].jobs >= 1
    assert "inference.small" not in unserved


@pytest.mark.parametrize("is_served", [False, True])
def test_moved_turns_return_from_an_endpoint_that_no_worker_serves(job_store, database, is_served):
    job_id = enqueue(job_store, "upstream.groq", "m")
    job_store.update(job_id, """arguments = '{"route": {"endpoint": "groq", "home": "inference", "moves": 1}}'""")
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO served_models (model_name, model_endpoint, model_queue, description)"
            " VALUES ('m', 'groq', 'upstream.groq', '{}') ON CONFLICT DO NOTHING"
        )
    if is_served:
        serve(database, "m", "upstream.groq")

    move(database)

    assert job_store.job(job_id).queue == ("upstream.groq" if is_served else "inference")


def test_turns_move_by_the_model_that_their_request_names(job_store, database):
    # Given turns of two models in the queue of the former default
    account, user, turns = job_store.create_account(), new_id("user"), {}
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO users (id, email, password_hash) VALUES (%s, %s, '')", (user, f"{user}@example.com")
        )
    for model in ("small", "other"):
        turns[model] = job_store.enqueue(account)
        job_store.update(turns[model], "queue = 'inference', published_at = now()")
        with database.connection() as connection:
            connection.execute(
                "INSERT INTO responses (id, account_id, user_id, job_id, thread, request, input)"
                " VALUES (%s, %s, %s, %s, 'thread_a', %s, '[]')",
                (f"resp_{turns[model]}", account, user, turns[model], Jsonb({"model": model})),
            )
    serve(database, "small", "inference.small")

    # When the sweeper passes
    move(database)

    # Then only those of the served model have moved
    assert job_store.job(turns["small"]).queue == "inference.small"
    assert job_store.job(turns["other"]).queue == "inference"
