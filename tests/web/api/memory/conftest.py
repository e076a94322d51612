"""Fixtures of memories: workers, and an application whose API key serves several people."""

import copy

import pytest

from bench.harness.waiting import wait_until
from tests.web.api.memory.people import FOODS, STATEMENT, write
from tests.web.worker_process import run_worker

RUNNABLE = "SELECT count(*) AS count FROM jobs WHERE account_id = %s AND state IN ('queued', 'running')"


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """A worker process of the pools that answer, search and remember."""
    with run_worker(settings, ["inference", "memory", "recall"], tmp_path_factory.mktemp("spaces"), "tokens=3,rate=0"):
        yield


@pytest.fixture
def create_key(user):
    """`create_key(memory=…)` → the user's application: requests are sent with a new API key."""

    def create_key(**fields):
        created = user.request("POST", "/v1/api_keys", json={"name": "app", **fields})
        assert created.status_code == 201, created.text
        app = copy.copy(user)
        app.token = created.json()["key"]
        return app

    return create_key


@pytest.fixture
def app(create_key, database):
    """An application with an API key that serves several people."""
    app = create_key()
    yield app
    with database.connection() as connection:  # deleting the account must not deadlock with the end of a job
        wait_until(lambda: not connection.execute(RUNNABLE, (app.caller.account_id,)).fetchone()["count"])


@pytest.fixture
def person_memories(app, workers):
    """A memory of each person, by their name."""
    return {name: write(app, name, STATEMENT.format(food), speaker="user") for name, food in FOODS.items()}
