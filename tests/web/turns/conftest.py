"""A worker for the tests of a module, and OpenAI's own client."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from models.settings import Settings
from tests.web.visiting import Visitor
from tests.web.working import working


@pytest.fixture(scope="module")
def worker(
    request: pytest.FixtureRequest, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The pool that the module names as `POOL`. It starts with the first test that asks for it."""
    pool = request.module.POOL
    with working(settings, [pool], tmp_path_factory.mktemp(pool)):
        yield


@pytest.fixture
def client(visitor: Visitor, worker: None) -> OpenAI:
    """The official client, as the visitor."""
    return OpenAI(base_url=f"{visitor.door.base_url}/v1", api_key=visitor.token, max_retries=0, timeout=30)
