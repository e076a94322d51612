"""Fixtures for tests with a worker process and with OpenAI's client."""

from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI

from models.platform.database import Database
from models.platform.settings import Settings
from scheduler.clock import Clock
from tests.web.api.turns.client_requests import ClientRequest, turns_of
from tests.web.api_client import ApiUser
from tests.web.worker_process import run_worker


@pytest.fixture(scope="module")
def worker(
    request: pytest.FixtureRequest, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A worker process of the pool in the module's `POOL`, started with the first test that uses it."""
    pool = request.module.POOL
    with run_worker(settings, [pool], tmp_path_factory.mktemp(pool)):
        yield


@pytest.fixture
def client(user: ApiUser, worker: None) -> OpenAI:
    """OpenAI's client with the user's token."""
    return OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=0, timeout=30)


@pytest.fixture
def end_grace(user: ApiUser, database: Database, settings: Settings) -> Callable[[], None]:
    """`end_grace()` ends the grace of all abandoned turns and runs the scheduler."""
    clock = Clock(settings, database, user.client.app.state.platform.queue)

    def end_grace() -> None:
        with database.connection() as connection:
            connection.execute("UPDATE abandoned_turns SET cancel_at = now()")
        clock.sweep()

    return end_grace


@pytest.fixture
def start_and_disconnect(user):
    """`start_and_disconnect(path, body, …)` → the id of a new turn whose client has disconnected."""

    def start_and_disconnect(path, body, headers=None, *, stream=False):
        known = {job["id"] for job in turns_of(user)}
        ClientRequest(user, path, body, headers, stream=stream).disconnect()
        (job_id,) = {job["id"] for job in turns_of(user)} - known
        return job_id

    return start_and_disconnect
