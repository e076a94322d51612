"""The pool `upstream`: queues and threads of endpoints, the engine of each job, and repeats."""

from types import SimpleNamespace
from typing import Any

import pytest

from models.jobs.attempt_context import Attempt
from models.jobs.jobs import Job
from models.journal.events import event
from models.platform.errors import ConfigurationError, PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.chat.job_requests import engine_of_attempt, may_repeat
from pipelines.inference.openai.engine import OpenAIEngine
from tasks import upstream as pool
from tasks.job_runner import JobRunner
from tasks.upstream import Endpoints, declare_actors
from tasks.worker import run_worker

GROQ = Upstream("groq", "https://api.groq.example/v1", ("big", "small"), "sk-hunter2", slots=3, context=9000)
CORP = Upstream("corp", "http://10.0.0.1/v1", ("big",), slots=1, continues=True)


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints(Settings(upstreams=(GROQ, CORP)))


def attempt_of(queue: str = "upstream.groq", *, history: Any = (), attempt: int = 1, **fields: Any) -> Attempt:
    values = dict.fromkeys(Job.__dataclass_fields__) | {"failures": 0, "arguments": {}, "kind": "turn.run"}
    job = Job(**values | {"id": "job_1", "queue": queue, "attempt": attempt, **fields})
    return Attempt(job, SimpleNamespace(), SimpleNamespace(), list(history))  # type: ignore[arg-type]


def test_each_endpoint_has_queues_with_a_thread_for_each_slot(runner: JobRunner) -> None:
    runner.settings = Settings(upstreams=(GROQ, CORP))

    threads = declare_actors(runner)

    assert threads == {
        "upstream.groq": 3, "upstream.groq_batch": 2, "upstream.corp": 1, "upstream.corp_batch": 1,
        "upstream.groq_priority": 1, "upstream.corp_priority": 1,
    }  # fmt: skip
    assert [(each.description.endpoint, each.id, each.queue, each.slots) for each in runner.served] == [
        ("groq", "big", "upstream.groq", 3), ("groq", "small", "upstream.groq", 3), ("corp", "big", "upstream.corp", 1),
    ]  # fmt: skip
    assert [each.description.continues for each in runner.served] == [False, False, True]


def test_the_engine_of_the_pool_inference_is_left_out(runner: JobRunner) -> None:
    settings = Settings(engine="openai", upstreams=(GROQ, CORP))

    models = [(endpoint.name, *endpoint.models) for endpoint in Endpoints(settings)]

    assert models == [("groq", "small"), ("corp", "big")]


def test_a_pool_without_endpoints_is_one_line(runner: JobRunner) -> None:
    runner.settings = Settings(engine="openai", upstreams=(CORP,))

    with pytest.raises(ConfigurationError, match=r"^SANGHA_UPSTREAMS names no endpoint"):
        declare_actors(runner)


def test_a_process_does_not_serve_both_pools_of_engines() -> None:
    with pytest.raises(ConfigurationError, match="one worker for each"):
        run_worker(Settings(upstreams=(CORP,)), ["inference", "upstream"])


@pytest.mark.parametrize(
    ("queue", "arguments", "engine"),
    [
        ("upstream.groq", {"route": {"endpoint": "groq", "model": "small"}, "model": "local"}, ("groq", "small", 9000)),
        ("upstream.groq", {"model": "groq/small"}, ("groq", "small", 9000)),
        ("upstream.groq_batch", {"model": "big"}, ("groq", "big", 9000)),
        ("upstream.corp", {"route": {"endpoint": "corp"}, "model": "corp/big"}, ("corp", "big", 32768)),
    ],
)
def test_the_route_or_else_the_model_names_the_engine(
    endpoints: Endpoints, queue: str, arguments: dict[str, Any], engine: tuple[str, str, int]
) -> None:
    model = endpoints.model_of(attempt_of(queue, arguments=arguments))

    assert (model.engine.endpoint, model.engine.name, model.engine.context) == engine


def test_models_of_an_endpoint_share_its_connections(endpoints: Endpoints) -> None:
    groq, corp = endpoints
    clients = {id(model.engine._client) for model in groq.models.values()}

    assert len(clients) == 1
    assert clients.isdisjoint({id(model.engine._client) for model in corp.models.values()})


@pytest.mark.parametrize(("queue", "model"), [("upstream.groq", "huge"), ("upstream.gone", "big")])
def test_a_job_of_no_model_fails(endpoints: Endpoints, queue: str, model: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        endpoints.model_of(attempt_of(queue, arguments={"model": model}))

    assert caught.value.code == "model_not_found"


def started(step: int) -> Any:
    payload = {"item_id": f"msg_{step}", "model": "big", "prompt_tokens": 3, "dropped_messages": 0}
    return event(step, "sangha:engine.started", {**payload, **({"step": step} if step else {})})


@pytest.mark.parametrize(
    ("attempt", "repeats"),
    [
        (attempt_of(), False),
        (attempt_of(attempt=2, failures=1), True),
        (attempt_of(attempt=2), False),  # it was released before it sent anything
        (attempt_of(attempt=2, history=[started(0)]), True),
    ],
)
def test_a_request_that_an_earlier_attempt_may_have_sent_is_a_repeat(
    endpoints: Endpoints, attempt: Attempt, repeats: bool
) -> None:
    attempt.job.arguments["model"] = "big"

    assert may_repeat(attempt) is repeats
    engine = engine_of_attempt(endpoints.model_of(attempt).engine, attempt)
    assert isinstance(engine, OpenAIEngine)
    assert (engine._job_id, engine._is_repeat) == ("job_1", repeats)


def test_no_api_key_is_shown(endpoints: Endpoints, capsys: pytest.CaptureFixture[str]) -> None:
    (groq, *_) = endpoints

    shown = f"{groq!r} {vars(groq)!r} {groq.models!r} {pool.pool_models(Settings(upstreams=(GROQ,)))!r}"

    assert "hunter2" not in shown
