"""Fixtures of the engine `openai`: an endpoint over HTTP and an engine that uses it."""

from collections.abc import Iterator

import pytest

from pipelines.inference.openai.engine import OpenAIEngine
from pipelines.inference.registry import load_engine
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    running_endpoint,
)
from tests.pipelines.inference.openai.generation import settings_of


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def engine(endpoint: Endpoint) -> Iterator[OpenAIEngine]:
    engine = load_engine(settings_of(endpoint))
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()
