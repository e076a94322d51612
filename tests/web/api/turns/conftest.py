"""A worker for the tests of a module, and OpenAI's own client."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from models.platform.settings import Settings
from tests.web.api_client import ApiUser
from tests.web.worker_process import run_worker


@pytest.fixture(scope="module")
def worker(
    request: pytest.FixtureRequest, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The pool that the module names as `POOL`. It starts with the first test that asks for it."""
    pool = request.module.POOL
    with run_worker(settings, [pool], tmp_path_factory.mktemp(pool)):
        yield


@pytest.fixture
def client(user: ApiUser, worker: None) -> OpenAI:
    """The official client, as the visitor."""
    return OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=0, timeout=30)
