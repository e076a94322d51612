"""The engine `llamacpp` with the bundled SmolLM2."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import orjson
import pytest
from jsonschema import validate

from bench.harness.waiting import wait_until
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.engine import (
    EngineError,
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
from pipelines.inference.llamacpp.chunks import ChunkQueue
from pipelines.inference.llamacpp.engine import PROMPT_BATCH, LlamaCppEngine, load_llamacpp

STORY = [Message("user", "Write a long story about a dragon and a knight.")]
GREEDY = Sampling(max_output_tokens=24, temperature=0)
ENDLESS = Sampling(max_output_tokens=400, temperature=0)
SEVERAL_CALLS = Sampling(max_output_tokens=100, temperature=0)

#: The model computes as long as the machine's other work makes it.
pytestmark = pytest.mark.timeout(600)

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city", "days"],
    },
)
SEND_MAIL = Tool(
    "send_mail",
    "Send a mail",
    {"type": "object", "properties": {"to": {"enum": ["a@b.c", "d@e.f"]}}, "required": ["to"]},
)
WEATHER_PROMPT = [Message("user", "What is the weather in Paris for 3 days?")]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["tea", "cake"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
PERSON_PROMPT = [Message("user", "Tell me of a person named Zoë.")]


def not_cancelled() -> bool:
    return False


def answer(
    engine: LlamaCppEngine,
    prompt: list[Message],
    sampling: Sampling = GREEDY,
    prefix: str = "",
    cancelled: Callable[[], bool] = not_cancelled,
) -> tuple[list[Token], Finish]:
    *tokens, finish = engine.generate(prompt, prefix=prefix, sampling=sampling, cancelled=cancelled)
    assert isinstance(finish, Finish)
    assert all(isinstance(token, PromptRead | Token) for token in tokens)
    return [token for token in tokens if isinstance(token, Token)], finish


def generate(
    engine: LlamaCppEngine,
    output_format: OutputFormat,
    prompt: list[Message] = STORY,
    sampling: Sampling = ENDLESS,
    prefix: str = "",
    calls: Sequence[ToolCall] = (),
) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer in an output format."""
    *items, finish = engine.generate(
        prompt, prefix=prefix, sampling=sampling, cancelled=not_cancelled, output_format=output_format, calls=calls
    )
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(item.count for item in items if not isinstance(item, Finish | PromptRead))
    answer_text = "".join(item.text for item in items if isinstance(item, Token))
    return answer_text, [item for item in items if isinstance(item, GeneratedCall)], finish


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def busy_slots(engine: LlamaCppEngine) -> int:
    slots: list[dict[str, bool]] = engine._loopback.request("GET", "/slots")  # type: ignore[assignment]
    return sum(slot["is_processing"] for slot in slots)


def wait_until_idle(engine: LlamaCppEngine) -> None:
    """Wait until no slot is busy: at once on an idle machine, after seconds on one that has other work."""
    wait_until(lambda: busy_slots(engine) == 0, timeout=60, what="a free slot")


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_prefix_is_continued_exactly_as_the_uninterrupted_answer(engine: LlamaCppEngine, cut: int) -> None:
    # Given an answer that was not interrupted
    whole, _ = answer(engine, STORY)
    # When another attempt gets its beginning as the prefix
    remaining = 24 - sum(token.count for token in whole[:cut])
    rest, finish = answer(engine, STORY, Sampling(remaining, temperature=0), text(whole[:cut]))
    # Then only the rest is generated, and the prefix isn't counted as prompt
    assert text(rest) == text(whole[cut:])
    assert finish.prompt_tokens == engine.count(STORY)


@pytest.mark.parametrize("prompt", [STORY, [Message("user", "Repeat only this: 🦙🦙🦙🦙")]])
def test_token_counts_add_up(engine: LlamaCppEngine, prompt: list[Message]) -> None:
    # When an answer runs into its limit
    tokens, finish = answer(engine, prompt)
    # Then the counts add up, also where one character has several tokens
    assert finish.reason == "length"
    assert finish.generated_tokens == sum(token.count for token in tokens)
    assert 24 - 3 <= finish.generated_tokens <= 24
    assert finish.prompt_tokens == engine.count(prompt)


def test_an_answer_ends_before_a_stop_text(engine: LlamaCppEngine) -> None:
    whole, _ = answer(engine, STORY)
    stop = f" {text(whole).split()[8]}"
    tokens, finish = answer(engine, STORY, Sampling(24, temperature=0, stop=(stop, "")))
    assert finish.reason == "stop"
    assert text(tokens) == text(whole).partition(stop)[0]
    assert finish.generated_tokens == sum(token.count for token in tokens)


def test_the_next_turn_of_a_conversation_uses_the_prompt_cache(engine: LlamaCppEngine) -> None:
    # Given a turn that was answered
    prompt = [Message("system", "You are brief."), Message("user", "Name a colour.")]
    first, _ = answer(engine, prompt)
    # When the conversation continues
    _, finish = answer(engine, [*prompt, Message("assistant", text(first)), Message("user", "Another?")])
    # Then the earlier prompt is cached
    assert engine.count(prompt) <= finish.cached_tokens < finish.prompt_tokens


def test_an_assistant_message_at_the_end_is_continued_with_its_prefix(engine: LlamaCppEngine) -> None:
    partial = [*STORY, Message("assistant", "Once upon")]
    tokens, finish = answer(engine, partial, prefix=" a time")
    assert text(tokens) == text(answer(engine, STORY, prefix="Once upon a time")[0])
    assert finish.prompt_tokens == engine.count(partial)


def test_a_cancelled_generation_frees_its_slot(engine: LlamaCppEngine) -> None:
    # Given an answer that is cancelled at its third piece
    cancel = threading.Event()
    tokens: list[Token] = []
    for item in engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=cancel.is_set):
        if isinstance(item, Finish):
            break
        if isinstance(item, PromptRead):
            continue
        tokens.append(item)
        if len(tokens) == 3:
            cancel.set()
    # Then it ends as cancelled, without further tokens, and its slot is free
    assert isinstance(item, Finish)
    assert (item.reason, item.generated_tokens) == ("cancelled", sum(token.count for token in tokens))
    wait_until_idle(engine)
    # And the next generation runs
    assert answer(engine, STORY)[1].reason == "length"


def test_closing_the_iterator_frees_its_slot(engine: LlamaCppEngine) -> None:
    items = engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=not_cancelled)
    next(items)
    assert busy_slots(engine) == 1
    items.close()  # type: ignore[attr-defined]
    wait_until_idle(engine)


def test_an_exception_of_cancelled_propagates_and_frees_the_slot(engine: LlamaCppEngine) -> None:
    def deadline() -> bool:
        raise TimeoutError("too late")

    with pytest.raises(TimeoutError, match="too late"):
        answer(engine, STORY, ENDLESS, cancelled=deadline)
    wait_until_idle(engine)


def test_a_cancel_while_the_prompt_is_read_stops_after_two_batches(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a prompt that takes many batches to read
    long = [Message("user", " ".join(f"{number * 7919}" for number in range(60)))]
    batches: list[bool] = []  # of the prompt; whether each was read after the cancel
    on_chunk = ChunkQueue.on_chunk

    def record(chunks: ChunkQueue, chunk: bytes) -> bool:
        batches.append(chunks.stop_requested)
        return on_chunk(chunks, chunk)

    monkeypatch.setattr(ChunkQueue, "on_chunk", record)
    # When it is cancelled
    polls: Iterator[bool] = iter([False, False, True])
    tokens, finish = answer(engine, long, cancelled=lambda: next(polls))
    # Then it ends without a token, and the rest of the prompt is not read
    assert (tokens, finish.reason) == ([], "cancelled")
    wait_until_idle(engine)
    assert sum(batches) <= 2
    assert len(batches) < engine.count(long) / PROMPT_BATCH


def test_a_generation_that_waits_for_a_slot_can_be_cancelled(engine: LlamaCppEngine) -> None:
    # Given all slots taken
    running = [
        engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=not_cancelled) for _ in range(engine.slots)
    ]
    for items in running:
        next(items)
    # When one more generation waits and is cancelled
    polls = iter([False, True])
    assert answer(engine, STORY, cancelled=lambda: next(polls)) == ([], Finish("cancelled", 0, 0, 0))
    # Then the others continue
    assert all(isinstance(next(items), Token) for items in running)
    for items in running:
        items.close()  # type: ignore[attr-defined]


def test_two_generations_run_at_once(engine: LlamaCppEngine) -> None:
    # Given two generations that wait for each other's first token
    barrier = threading.Barrier(2, timeout=30)

    def run(subject: str) -> Finish:
        items = engine.generate([Message("user", subject)], prefix="", sampling=GREEDY, cancelled=not_cancelled)
        read, first = next(items), next(items)
        assert (type(read), type(first)) == (PromptRead, Token)
        barrier.wait()
        *_, last = items
        assert isinstance(last, Finish)
        return last

    # Then neither waited for the other's end
    with ThreadPoolExecutor(2) as pool:
        assert all(finish.generated_tokens for finish in pool.map(run, ["Tell me of cats.", "Tell me of dogs."]))


@pytest.mark.parametrize("parallel", [True, False])
def test_a_required_call_satisfies_its_schema(engine: LlamaCppEngine, parallel: bool) -> None:
    # When an answer must call, and may call either function
    answer_text, calls, finish = generate(
        engine, OutputFormat((WEATHER, SEND_MAIL), "required", parallel), WEATHER_PROMPT, SEVERAL_CALLS
    )
    # Then it does, without text; the small model ends by itself only where further calls are not possible
    assert answer_text == ""
    assert finish.reason == "stop" or parallel
    assert finish.prompt_tokens == engine.count(WEATHER_PROMPT, OutputFormat((WEATHER, SEND_MAIL), "required"))
    assert calls[0].name == "get_weather"
    for call in calls:
        validate(
            orjson.loads(call.arguments), WEATHER.parameters if call.name == WEATHER.name else SEND_MAIL.parameters
        )


def test_a_named_function_is_called_once(engine: LlamaCppEngine) -> None:
    _, (call,), _ = generate(engine, OutputFormat((WEATHER, SEND_MAIL), ("function", "send_mail")), WEATHER_PROMPT)
    assert call.name == "send_mail"
    validate(orjson.loads(call.arguments), SEND_MAIL.parameters)


def test_an_answer_that_may_call_may_be_text(engine: LlamaCppEngine) -> None:
    answer_text, calls, finish = generate(engine, OutputFormat((WEATHER,)), WEATHER_PROMPT, GREEDY)
    assert answer_text
    assert (calls, finish.reason) == ([], "length")


def test_calls_of_an_earlier_attempt_are_not_repeated(engine: LlamaCppEngine) -> None:
    # Given an answer that was cut after a call
    output_format = OutputFormat((WEATHER, SEND_MAIL), "required")
    earlier_calls = [ToolCall("1", "get_weather", '{"city": "Paris", "days": 3}')]
    # When it continues
    answer_text, calls, finish = generate(engine, output_format, WEATHER_PROMPT, calls=earlier_calls, prefix="So:")
    # Then the call isn't repeated
    assert (answer_text, finish.prompt_tokens) == ("", engine.count(WEATHER_PROMPT, output_format))
    assert (earlier_calls[0].name, earlier_calls[0].arguments) not in [(call.name, call.arguments) for call in calls]


def test_a_call_cut_by_the_token_limit_is_dropped(engine: LlamaCppEngine) -> None:
    answer_text, calls, finish = generate(
        engine, OutputFormat((WEATHER,), "required"), WEATHER_PROMPT, Sampling(12, temperature=0)
    )
    assert (answer_text, calls, finish.reason, finish.generated_tokens) == ("", [], "length", 0)


def test_json_cut_anywhere_is_continued_by_its_schema(engine: LlamaCppEngine) -> None:
    # Given an answer by a schema
    whole, _, finish = generate(engine, OutputFormat(schema=PERSON), PERSON_PROMPT)
    validate(orjson.loads(whole), PERSON)
    assert finish.reason == "stop"
    # When it is cut at any character and continued
    for cut in range(1, len(whole) + 1, 7):
        rest, _, _ = generate(engine, OutputFormat(schema=PERSON), PERSON_PROMPT, prefix=whole[:cut])
        # Then the whole still satisfies the schema
        validate(orjson.loads(whole[:cut] + rest), PERSON)


def test_json_is_continued_where_calls_would_be_possible(engine: LlamaCppEngine) -> None:
    rest, calls, _ = generate(engine, OutputFormat((WEATHER,), schema=PERSON), PERSON_PROMPT, prefix='{"name": "Z')
    validate(orjson.loads('{"name": "Z' + rest), PERSON)
    assert not calls


def test_an_empty_schema_admits_any_object(engine: LlamaCppEngine) -> None:
    prompt = [Message("user", "A JSON object with the key a and the value 1.")]
    whole, _, _ = generate(engine, OutputFormat(schema={}), prompt)
    assert isinstance(orjson.loads(whole), dict)
    rest, _, _ = generate(engine, OutputFormat(schema={}), prompt, prefix='{"a": ')
    assert isinstance(orjson.loads('{"a": ' + rest), dict)


def test_a_schema_that_no_grammar_can_enforce_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    with pytest.raises(PermanentFailure, match="Invalid type") as caught:
        generate(engine, OutputFormat(schema={"type": "foo"}))
    assert caught.value.code == "invalid_request"


def test_the_same_seed_gives_the_same_answer(engine: LlamaCppEngine) -> None:
    one, same, other = (text(answer(engine, STORY, Sampling(16, temperature=1.5, seed=seed))[0]) for seed in (7, 7, 8))
    assert one == same != other


def test_a_stop_text_ends_an_answer_that_may_call(engine: LlamaCppEngine) -> None:
    whole, _, _ = generate(engine, OutputFormat((WEATHER,)), WEATHER_PROMPT, GREEDY)
    stop = whole.split()[3]
    answer_text, _, finish = generate(
        engine, OutputFormat((WEATHER,)), WEATHER_PROMPT, Sampling(24, temperature=0, stop=(stop,))
    )
    assert (answer_text, finish.reason) == (whole.partition(stop)[0], "stop")
    wait_until_idle(engine)


def test_a_prompt_longer_than_the_context_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    with pytest.raises(PermanentFailure, match="exceeds the available context") as caught:
        answer(engine, [Message("user", "word " * 600)])
    assert caught.value.code == "context_length_exceeded"


def test_a_prefix_that_fills_the_context_ends_the_answer(engine: LlamaCppEngine) -> None:
    tokens, finish = answer(engine, STORY, prefix="word " * 600)
    assert (tokens, finish.reason) == ([], "length")


def test_an_invalid_request_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    invalid = Sampling(8, temperature="warm")  # type: ignore[arg-type]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine, STORY, invalid)
    assert caught.value.code == "invalid_request"


def test_a_limit_of_0_tokens_generates_none(engine: LlamaCppEngine) -> None:
    assert answer(engine, STORY, Sampling(0)) == ([], Finish("length", engine.count(STORY), 0, 0))


def test_the_engine_reports_name_slots_and_context(engine: LlamaCppEngine) -> None:
    assert engine.context == 512
    assert (engine.name, engine.slots, engine.continues) == ("smollm2-135m-instruct", 2, True)


def test_the_tokens_of_a_prompt_and_those_cached_precede_the_first_token_once(engine: LlamaCppEngine) -> None:
    # Given a prompt of several batches that was read before
    answer(engine, STORY)
    # When it is answered again, in two parts
    read, *outputs = engine.generate(STORY, prefix="", sampling=replace(GREEDY, min_tokens=3), cancelled=not_cancelled)
    # Then what the end has of the prompt is known at the beginning
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    assert read == PromptRead(finish.prompt_tokens, finish.cached_tokens)
    assert finish.cached_tokens > 0
    assert not any(isinstance(output, PromptRead) for output in outputs)


def test_closing_cancels_generations_and_rejects_new_ones() -> None:
    # Given an engine with a running generation
    own_engine = load_llamacpp(Settings(slots=1, context=256))
    items = own_engine.generate(STORY, prefix="", sampling=Sampling(200, temperature=0), cancelled=not_cancelled)
    next(items)
    # When it is closed
    own_engine.close()
    # Then the generation ends early, and another isn't begun
    *_, finish = items
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"
    with pytest.raises(EngineError, match="closed"):
        answer(own_engine, STORY)
