"""What every engine in the process does alike, with random weights: streams, counts, cancels, continues, constrains."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from bench.harness.random_models.llama2 import write_llama2
from bench.harness.random_models.llama31 import write_llama31
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    Engine,
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    PromptRead,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.registry import load_engine

WRITERS = {"llamacpp": write_llama31, "ctransformers": write_llama2}
PROMPT = [Message("system", "Be kind."), Message("user", "What is the weather? \U0001f999")]
WEATHER = Tool(
    "weather",
    "The weather of a city",
    {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
)
REQUIRED = OutputFormat((WEATHER,), "required")
PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Zo\u00eb"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=WRITERS)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    name: str = request.param
    file = WRITERS[name](tmp_path_factory.mktemp(name) / "model.gguf")
    return Settings(engine=name, model=str(file), slots=2, context=1536)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = load_engine(settings)
    yield engine
    engine.close()


def outputs(
    engine: Engine,
    prompt: Sequence[Message] = PROMPT,
    output_format: OutputFormat = PLAIN_TEXT,
    prefix: str = "",
    calls: Sequence[ToolCall] = (),
    cancelled: Callable[[], bool] = lambda: False,
    **sampling: Any,
) -> Iterator[EngineOutput]:
    options = Sampling(**{"max_output_tokens": 16, "temperature": 0, **sampling})
    return engine.generate(
        prompt, prefix=prefix, sampling=options, cancelled=cancelled, output_format=output_format, calls=calls
    )


def generate(engine: Engine, *args: Any, **options: Any) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer. Checks that the counts add up."""
    *items, finish = outputs(engine, *args, **options)
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(item.count for item in items if not isinstance(item, Finish | PromptRead))
    text = "".join(item.text for item in items if isinstance(item, Token))
    return text, [item for item in items if isinstance(item, GeneratedCall)], finish


def test_an_answer_ends_at_its_limit(engine: Engine) -> None:
    text, _, finish = generate(engine)

    assert text
    assert (finish.reason, finish.generated_tokens) == ("length", 16)
    assert finish.prompt_tokens == engine.count(PROMPT)


def test_a_limit_of_0_tokens_generates_none(engine: Engine) -> None:
    assert generate(engine, max_output_tokens=0) == ("", [], Finish("length", engine.count(PROMPT), 0, 0))


def test_an_answer_continues_where_it_was_cut(engine: Engine) -> None:
    whole, _, _ = generate(engine)
    cut = whole.index(" ")

    rest, _, finish = generate(engine, prefix=whole[:cut])

    assert (whole[:cut] + rest).startswith(whole[: cut + 4])
    assert finish.prompt_tokens == engine.count(PROMPT)


def test_an_assistant_message_at_the_end_is_continued_with_its_prefix(engine: Engine) -> None:
    partial = [*PROMPT, Message("assistant", "the and")]

    text, _, finish = generate(engine, partial, prefix=" of you")

    assert text == generate(engine, prefix="the and of you")[0]
    assert finish.prompt_tokens == engine.count(partial)


def test_an_answer_ends_before_a_stop_text(engine: Engine) -> None:
    whole, _, _ = generate(engine)
    stop = whole[5:8]

    text, _, finish = generate(engine, stop=(stop, ""))

    assert (text, finish.reason) == (whole.partition(stop)[0], "stop")


def test_the_same_seed_gives_the_same_answer(engine: Engine) -> None:
    one, same, other = (generate(engine, temperature=1.5, seed=seed)[0] for seed in (7, 7, 8))

    assert one == same != other


def test_a_bias_chooses_tokens_and_the_least_number_comes_before_the_end(engine: Engine) -> None:
    # Given a model that would end at once
    end = next(token for token in range(1000) if generate(engine, logit_bias=((token, 1e4),))[2].reason == "stop")
    assert generate(engine, logit_bias=((end, 1e4),))[2].generated_tokens <= 1
    # Then a least number of tokens is generated, or all where it may not end
    assert generate(engine, logit_bias=((end, 50.0),), min_tokens=5)[2].generated_tokens >= 5
    assert generate(engine, logit_bias=((end, 50.0),), ignore_eos=True)[2].reason == "length"


def test_the_next_turn_of_a_conversation_uses_the_prompt_cache(engine: Engine) -> None:
    first, _, finish = generate(engine)

    _, _, second = generate(engine, [*PROMPT, Message("assistant", first), Message("user", "And?")])

    assert finish.prompt_tokens / 2 < second.cached_tokens < second.prompt_tokens


@pytest.mark.parametrize("temperature", [0, 2])
def test_a_required_call_satisfies_its_schema(engine: Engine, temperature: float) -> None:
    text, calls, finish = generate(engine, PROMPT, REQUIRED, max_output_tokens=400, temperature=temperature, seed=3)

    assert text == ""
    assert finish.prompt_tokens == engine.count(PROMPT, REQUIRED) > engine.count(PROMPT)
    assert {orjson.loads(call.arguments)["city"] for call in calls} & {"Rome", "Oslo"}


def test_a_call_that_was_made_is_not_repeated(engine: Engine) -> None:
    earlier = ToolCall("call_1", "weather", '{"city": "Rome"}')

    _, calls, _ = generate(engine, PROMPT, REQUIRED, calls=[earlier], max_output_tokens=400)

    assert (earlier.name, earlier.arguments) not in [(call.name, call.arguments) for call in calls]


def test_json_cut_anywhere_is_continued_by_its_schema(engine: Engine) -> None:
    schema = OutputFormat(schema=PERSON)
    whole, _, _ = generate(engine, PROMPT, schema, max_output_tokens=100)

    for cut in range(0, len(whole) + 1, 5):
        rest, _, _ = generate(engine, PROMPT, schema, whole[:cut], max_output_tokens=100)
        person = orjson.loads(whole[:cut] + rest)
        assert person["name"] in ("Ann", "Zo\u00eb")
        assert 0 <= person["age"] <= 99


def test_messages_cannot_write_control_tokens(engine: Engine) -> None:
    plain = engine.count([Message("user", "x")])

    assert engine.count([Message("user", "x</s><|eot_id|>")]) > plain + 4


def test_a_cancel_ends_the_answer_within_a_token(engine: Engine) -> None:
    cancel, received = threading.Event(), list[Token]()
    for output in outputs(engine, cancelled=cancel.is_set, max_output_tokens=1000):
        if isinstance(output, Finish):
            break
        if isinstance(output, PromptRead):
            continue
        assert isinstance(output, Token)
        received.append(output)
        cancel.set()

    assert (output.reason, output.generated_tokens) == ("cancelled", sum(token.count for token in received))
    assert len(received) <= 2
    assert generate(engine)[2].reason == "length"


def test_an_exception_of_cancelled_propagates_and_frees_the_slot(engine: Engine) -> None:
    def deadline() -> bool:
        raise TimeoutError("too late")

    for _ in range(engine.slots + 1):
        with pytest.raises(TimeoutError, match="too late"):
            generate(engine, cancelled=deadline)
    assert generate(engine)[2].reason == "length"


def test_a_generation_that_waits_for_a_slot_can_be_cancelled(engine: Engine) -> None:
    running = [outputs(engine, max_output_tokens=1000) for _ in range(engine.slots)]
    for items in running:
        next(items)
    polls = iter([False, True])

    _, _, finish = generate(engine, cancelled=lambda: next(polls, True))

    assert (finish.reason, finish.generated_tokens) == ("cancelled", 0)
    for items in running:
        items.close()  # type: ignore[attr-defined]


def test_generations_run_at_once(engine: Engine) -> None:
    barrier = threading.Barrier(engine.slots, timeout=60)

    def run(subject: str) -> int:
        items = outputs(engine, [Message("user", subject)])
        next(items)
        barrier.wait()
        return sum(1 for _ in items)

    with ThreadPoolExecutor(engine.slots) as pool:
        assert all(pool.map(run, ["cats", "dogs"]))


def test_a_prompt_longer_than_the_context_is_a_permanent_failure(engine: Engine) -> None:
    with pytest.raises(PermanentFailure, match="exceeds the available context") as caught:
        generate(engine, [Message("user", "w" * 2000)])
    assert caught.value.code == "context_length_exceeded"


def test_a_prefix_that_fills_the_context_ends_the_answer(engine: Engine) -> None:
    text, _, finish = generate(engine, prefix="w" * 2000)

    assert (text, finish.reason) == ("", "length")


def test_closing_ends_generations_and_rejects_new_ones(settings: Settings) -> None:
    own = load_engine(settings)
    items = outputs(own, max_output_tokens=1000)
    next(items)

    own.close()

    *_, finish = items
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"
    with pytest.raises(EngineError, match="closed"):
        generate(own)
