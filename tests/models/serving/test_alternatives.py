"""Another endpoint with the same model."""

import pytest
from psycopg.types.json import Jsonb

from models.serving import breakers
from models.serving.alternatives import other_endpoint


@pytest.fixture
def database(database):
    """The database without models, workers and breakers, also afterwards."""
    delete_all(database)
    yield database
    delete_all(database)


def delete_all(database):
    with database.connection() as connection:
        for table in ("served_models", "workers", "circuit_breakers"):
            connection.execute(f"DELETE FROM {table}")


def serve(database, endpoint, model="big", *, is_local=False, has_worker=True):
    queue = f"upstream.{endpoint}"
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO served_models (model_name, model_endpoint, model_queue, description) VALUES (%s, %s, %s, %s)",
            (model, endpoint, queue, Jsonb({"is_local": is_local})),
        )
        if has_worker:
            connection.execute(
                "INSERT INTO workers (name, host, pid, pools, queues, threads, served)"
                " VALUES (%s, 'host', 1, '{upstream}', %s, 1, %s)",
                (endpoint, [queue], Jsonb([{"model": model, "endpoint": endpoint, "queue": queue, "slots": 1}])),
            )


def other(database):
    with database.connection() as connection:
        return other_endpoint(connection, "groq", "big")


def test_another_endpoint_with_the_same_model_is_found(database):
    serve(database, "groq")
    serve(database, "corp")

    assert other(database) == "corp"


def test_an_endpoint_without_the_model_a_worker_or_a_closed_breaker_is_none(database):
    serve(database, "groq")
    serve(database, "small_only", model="small")
    serve(database, "stopped", has_worker=False)
    serve(database, "failing")
    with database.connection() as connection:
        breakers.record_failure(connection, "failing", "job_a", "auth")
    assert other(database) is None

    with database.connection() as connection:
        breakers.force(connection, "failing", "closed")
    assert other(database) == "failing"


def test_an_endpoint_in_the_network_is_replaced_by_such_ones_only(database):
    serve(database, "groq", is_local=True)
    serve(database, "hosted")
    assert other(database) is None

    serve(database, "near", is_local=True)
    assert other(database) == "near"
