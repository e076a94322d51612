"""Requests of a job: equal ones have equal idempotency keys, and repeats are marked."""

from collections.abc import Callable
from email.message import Message as Headers

from pipelines.inference.engine import Message, OutputFormat, Sampling
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.endpoint import Endpoint, ReceivedRequest, answers_with
from tests.pipelines.inference.openai.generation import PROMPT, engine_of, settings_of


def recording(headers: list[Headers]) -> Callable[[ReceivedRequest], None]:
    """Return a handler that records the headers, which the next request on the connection replaces."""
    return lambda request: (headers.append(request.headers), answers_with("a")(request))[1]


def keys_of(headers: list[Headers]) -> list[str]:
    return [each["Idempotency-Key"] for each in headers]


def generate(engine: OpenAIEngine, prompt: list[Message] = PROMPT, prefix: str = "") -> None:
    list(engine.generate(prompt, prefix=prefix, sampling=Sampling(9), cancelled=lambda: False))


def test_attempts_of_a_step_have_one_key_and_later_ones_say_that_they_repeat(
    endpoint: Endpoint, engine: OpenAIEngine
) -> None:
    headers: list[Headers] = []
    endpoint.handlers += [recording(headers)] * 3

    generate(engine.for_job("job_1", is_repeat=False))
    generate(engine.for_job("job_1", is_repeat=True))
    generate(engine.for_job("job_2", is_repeat=False))

    first, second, other = keys_of(headers)
    assert first == second != other
    assert [each["X-Sangha-Repeat"] for each in headers] == [None, "1", None]


def test_each_step_of_a_job_has_a_key_of_its_own(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    headers: list[Headers] = []
    endpoint.handlers += [recording(headers)] * 2
    of_job = engine.for_job("job_1", is_repeat=False)

    generate(of_job)
    generate(of_job, [*PROMPT, Message("assistant", "a"), Message("user", "and then?")])

    assert len(set(keys_of(headers))) == 2


def test_requests_without_a_job_have_different_keys(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    headers: list[Headers] = []
    endpoint.handlers += [recording(headers)] * 2

    generate(engine)
    generate(engine)

    assert len(set(keys_of(headers))) == 2


def continuing(endpoint: Endpoint) -> OpenAIEngine:
    settings = settings_of(endpoint)
    upstream = settings.upstreams[0].__class__("test", endpoint.url, ("big",), continues=True)
    return engine_of(settings.model_copy(update={"upstreams": (upstream,)}))


def test_an_endpoint_that_continues_gets_the_partial_answer_as_its_last_message(endpoint: Endpoint) -> None:
    endpoint.handlers += [answers_with(" there", usage={"prompt_tokens": 30, "completion_tokens": 1})]
    engine = continuing(endpoint)

    outputs = [*engine.generate(PROMPT, prefix="Hello, you", sampling=Sampling(9), cancelled=lambda: False)]

    body = endpoint.requests[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "Hello, you"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert outputs[-1].prompt_tokens == 27  # type: ignore[union-attr]
    engine.close()


def test_other_endpoints_begin_the_answer_again(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("Hello")]

    generate(engine, prefix="Hel")

    assert endpoint.requests[0].body["messages"][-1]["role"] == "user"
    assert "continue_final_message" not in endpoint.requests[0].body


def test_only_plain_text_is_continued(endpoint: Endpoint) -> None:
    engine = continuing(endpoint)

    assert engine.can_continue(OutputFormat(), "Hel", "")
    assert engine.can_continue(OutputFormat(), "Hel", "I think")
    assert not engine.can_continue(OutputFormat(), "", "I think")
    assert not engine.can_continue(OutputFormat(schema={}), '{"a', "")
    engine.close()
