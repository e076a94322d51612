"""llama.cpp with the bundled SmolLM2: continuing, counting, stopping, calling, answering by schema, failing."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from jsonschema import validate

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.engine import (
    EngineError,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.llamacpp.engine import LlamaCppEngine, load_llamacpp

STORY = [Message("user", "Write a long story about a dragon and a knight.")]
GREEDY = Sampling(max_output_tokens=24, temperature=0)
ENDLESS = Sampling(max_output_tokens=400, temperature=0)

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city", "days"],
    },
)
MAIL = Tool(
    "send_mail",
    "Send a mail",
    {"type": "object", "properties": {"to": {"enum": ["a@b.c", "d@e.f"]}}, "required": ["to"]},
)
ASKED = [Message("user", "What is the weather in Paris for 3 days?")]
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
OF_PERSON = [Message("user", "Tell me of a person named Zoë.")]


def never() -> bool:
    return False


def answer(
    engine: LlamaCppEngine,
    prompt: list[Message],
    sampling: Sampling = GREEDY,
    prefix: str = "",
    cancelled: Callable[[], bool] = never,
) -> tuple[list[Token], Finish]:
    *tokens, finish = engine.generate(prompt, prefix=prefix, sampling=sampling, cancelled=cancelled)
    assert isinstance(finish, Finish)
    assert all(isinstance(token, Token) for token in tokens)
    return [token for token in tokens if isinstance(token, Token)], finish


def formed(
    engine: LlamaCppEngine,
    output_format: OutputFormat,
    prompt: list[Message] = STORY,
    sampling: Sampling = ENDLESS,
    prefix: str = "",
    calls: Sequence[ToolCall] = (),
) -> tuple[str, list[GeneratedCall], Finish]:
    """Text, calls and end of an answer in a form."""
    *items, finish = engine.generate(
        prompt, prefix=prefix, sampling=sampling, cancelled=never, output_format=output_format, calls=calls
    )
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(item.count for item in items if not isinstance(item, Finish))
    said = "".join(item.text for item in items if isinstance(item, Token))
    return said, [item for item in items if isinstance(item, GeneratedCall)], finish


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def busy_slots(engine: LlamaCppEngine) -> int:
    slots: list[dict[str, bool]] = engine._loopback.request("GET", "/slots")  # type: ignore[assignment]
    return sum(slot["is_processing"] for slot in slots)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_prefix_is_continued_as_if_nothing_had_happened(engine: LlamaCppEngine, cut: int) -> None:
    # Given an answer that was not interrupted
    whole, _ = answer(engine, STORY)
    # When another attempt gets its beginning as the prefix
    left = 24 - sum(token.count for token in whole[:cut])
    rest, finish = answer(engine, STORY, Sampling(left, temperature=0), text(whole[:cut]))
    # Then only what was missing comes, and the prefix isn't billed as prompt
    assert text(rest) == text(whole[cut:])
    assert finish.prompt_tokens == engine.count(STORY)


@pytest.mark.parametrize("prompt", [STORY, [Message("user", "Repeat only this: 🦙🦙🦙🦙")]])
def test_what_is_counted_is_what_came(engine: LlamaCppEngine, prompt: list[Message]) -> None:
    # When an answer runs into its limit
    tokens, finish = answer(engine, prompt)
    # Then the counts add up, also where several tokens make one character
    assert finish.reason == "length"
    assert finish.generated_tokens == sum(token.count for token in tokens)
    assert 24 - 3 <= finish.generated_tokens <= 24
    assert finish.prompt_tokens == engine.count(prompt)


def test_an_answer_ends_at_a_stop_text_and_leaves_it_out(engine: LlamaCppEngine) -> None:
    whole, _ = answer(engine, STORY)
    stop = f" {text(whole).split()[8]}"
    tokens, finish = answer(engine, STORY, Sampling(24, temperature=0, stop=(stop, "")))
    assert finish.reason == "stop"
    assert text(tokens) == text(whole).partition(stop)[0]
    assert finish.generated_tokens == sum(token.count for token in tokens)


def test_the_next_turn_reads_only_what_is_new(engine: LlamaCppEngine) -> None:
    # Given a turn that was answered
    prompt = [Message("system", "You are brief."), Message("user", "Name a colour.")]
    first, _ = answer(engine, prompt)
    # When the conversation goes on
    _, finish = answer(engine, [*prompt, Message("assistant", text(first)), Message("user", "Another?")])
    # Then what went before is still held
    assert engine.count(prompt) <= finish.cached_tokens < finish.prompt_tokens


def test_an_assistant_message_at_the_end_is_continued_with_its_prefix(engine: LlamaCppEngine) -> None:
    begun = [*STORY, Message("assistant", "Once upon")]
    tokens, finish = answer(engine, begun, prefix=" a time")
    assert text(tokens) == text(answer(engine, STORY, prefix="Once upon a time")[0])
    assert finish.prompt_tokens == engine.count(begun)


def test_a_cancelled_answer_stops_and_frees_its_slot(engine: LlamaCppEngine) -> None:
    # Given an answer that is cancelled at its third piece
    asked = threading.Event()
    seen: list[Token] = []
    for item in engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=asked.is_set):
        if isinstance(item, Finish):
            break
        seen.append(item)
        if len(seen) == 3:
            asked.set()
    # Then it says so, had no more tokens, and its slot is free
    assert isinstance(item, Finish)
    assert (item.reason, item.generated_tokens) == ("cancelled", sum(token.count for token in seen))
    wait_for(lambda: busy_slots(engine) == 0, seconds=1)
    # And the next one is answered
    assert answer(engine, STORY)[1].reason == "length"


def test_closing_the_iterator_frees_its_slot(engine: LlamaCppEngine) -> None:
    items = engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=never)
    next(items)
    assert busy_slots(engine) == 1
    items.close()  # type: ignore[attr-defined]
    wait_for(lambda: busy_slots(engine) == 0, seconds=1)


def test_what_cancelled_raises_comes_out_and_frees_the_slot(engine: LlamaCppEngine) -> None:
    def deadline() -> bool:
        raise TimeoutError("too late")

    with pytest.raises(TimeoutError, match="too late"):
        answer(engine, STORY, ENDLESS, cancelled=deadline)
    wait_for(lambda: busy_slots(engine) == 0, seconds=2)


def test_a_cancel_while_the_prompt_is_read_does_not_wait_for_it(engine: LlamaCppEngine) -> None:
    # Given a prompt that takes many batches to read
    long = [Message("user", " ".join(f"{number * 7919}" for number in range(60)))]
    # When it is cancelled at the first look
    looks: Iterator[bool] = iter([False, False, True])
    tokens, finish = answer(engine, long, cancelled=lambda: next(looks))
    # Then it ends without a token
    assert (tokens, finish.reason) == ([], "cancelled")
    wait_for(lambda: busy_slots(engine) == 0, seconds=3)


def test_one_that_waits_for_a_slot_can_be_cancelled(engine: LlamaCppEngine) -> None:
    # Given all slots taken
    taken = [engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=never) for _ in range(engine.slots)]
    for items in taken:
        next(items)
    # When one more asks, and is cancelled
    looks = iter([False, True])
    assert answer(engine, STORY, cancelled=lambda: next(looks)) == ([], Finish("cancelled", 0, 0, 0))
    # Then the others go on
    assert all(isinstance(next(items), Token) for items in taken)
    for items in taken:
        items.close()  # type: ignore[attr-defined]


def test_two_are_answered_at_once(engine: LlamaCppEngine) -> None:
    # Given two generations that wait for each other's first token
    both = threading.Barrier(2, timeout=30)

    def run(subject: str) -> Finish:
        items = engine.generate([Message("user", subject)], prefix="", sampling=GREEDY, cancelled=never)
        first = next(items)
        assert isinstance(first, Token)
        both.wait()
        *_, last = items
        assert isinstance(last, Finish)
        return last

    # Then neither waited for the other's end
    with ThreadPoolExecutor(2) as pool:
        assert all(finish.generated_tokens for finish in pool.map(run, ["Tell me of cats.", "Tell me of dogs."]))


@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_is_required_comes_and_fits_its_schema(engine: LlamaCppEngine, parallel: bool) -> None:
    # When an answer must call, and may call either function
    said, calls, finish = formed(engine, OutputFormat((WEATHER, MAIL), "required", parallel), ASKED)
    # Then it does, and says nothing else
    assert (said, finish.reason) == ("", "stop")
    assert finish.prompt_tokens == engine.count(ASKED, OutputFormat((WEATHER, MAIL), "required"))
    assert calls[0].name == "get_weather"
    for call in calls:
        validate(orjson.loads(call.arguments), WEATHER.parameters if call.name == WEATHER.name else MAIL.parameters)


def test_the_function_that_is_named_is_called_once(engine: LlamaCppEngine) -> None:
    _, (call,), _ = formed(engine, OutputFormat((WEATHER, MAIL), ("function", "send_mail")), ASKED)
    assert call.name == "send_mail"
    validate(orjson.loads(call.arguments), MAIL.parameters)


def test_an_answer_that_may_call_may_also_speak(engine: LlamaCppEngine) -> None:
    said, calls, finish = formed(engine, OutputFormat((WEATHER,)), ASKED, GREEDY)
    assert said
    assert (calls, finish.reason) == ([], "length")


def test_after_calls_that_were_made_come_only_others(engine: LlamaCppEngine) -> None:
    # Given an answer that was cut behind a call
    output_format = OutputFormat((WEATHER, MAIL), "required")
    made = [ToolCall("1", "get_weather", '{"city": "Paris", "days": 3}')]
    # When it goes on
    said, calls, finish = formed(engine, output_format, ASKED, calls=made, prefix="So:")
    # Then what was made isn't made again
    assert (said, finish.prompt_tokens) == ("", engine.count(ASKED, output_format))
    assert (made[0].name, made[0].arguments) not in [(call.name, call.arguments) for call in calls]


def test_a_call_cut_by_the_limit_does_not_come(engine: LlamaCppEngine) -> None:
    said, calls, finish = formed(engine, OutputFormat((WEATHER,), "required"), ASKED, Sampling(12, temperature=0))
    assert (said, calls, finish.reason, finish.generated_tokens) == ("", [], "length", 0)


def test_json_cut_anywhere_is_continued_as_its_schema_says(engine: LlamaCppEngine) -> None:
    # Given an answer by a schema
    whole, _, finish = formed(engine, OutputFormat(schema=PERSON), OF_PERSON)
    validate(orjson.loads(whole), PERSON)
    assert finish.reason == "stop"
    # When it is cut at any character, and goes on
    for cut in range(1, len(whole) + 1, 7):
        rest, _, _ = formed(engine, OutputFormat(schema=PERSON), OF_PERSON, prefix=whole[:cut])
        # Then the whole still is what the schema says
        validate(orjson.loads(whole[:cut] + rest), PERSON)


def test_json_cut_anywhere_goes_on_where_calls_would_have_been_possible(engine: LlamaCppEngine) -> None:
    rest, calls, _ = formed(engine, OutputFormat((WEATHER,), schema=PERSON), OF_PERSON, prefix='{"name": "Z')
    validate(orjson.loads('{"name": "Z' + rest), PERSON)
    assert not calls


def test_any_object_will_do_where_no_schema_says_which(engine: LlamaCppEngine) -> None:
    short = [Message("user", "A JSON object with the key a and the value 1.")]
    whole, _, _ = formed(engine, OutputFormat(schema={}), short)
    assert isinstance(orjson.loads(whole), dict)
    rest, _, _ = formed(engine, OutputFormat(schema={}), short, prefix='{"a": ')
    assert isinstance(orjson.loads('{"a": ' + rest), dict)


def test_a_schema_that_no_grammar_holds_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    with pytest.raises(PermanentFailure, match="Invalid type") as caught:
        formed(engine, OutputFormat(schema={"type": "foo"}))
    assert caught.value.code == "invalid_request"


def test_a_seed_gives_the_same_answer_again(engine: LlamaCppEngine) -> None:
    one, same, other = (text(answer(engine, STORY, Sampling(16, temperature=1.5, seed=seed))[0]) for seed in (7, 7, 8))
    assert one == same != other


def test_a_stop_text_ends_an_answer_that_may_call(engine: LlamaCppEngine) -> None:
    whole, _, _ = formed(engine, OutputFormat((WEATHER,)), ASKED, GREEDY)
    stop = whole.split()[3]
    said, _, finish = formed(engine, OutputFormat((WEATHER,)), ASKED, Sampling(24, temperature=0, stop=(stop,)))
    assert (said, finish.reason) == (whole.partition(stop)[0], "stop")
    wait_for(lambda: busy_slots(engine) == 0, seconds=1)


def test_a_prompt_longer_than_the_context_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    with pytest.raises(PermanentFailure, match="exceeds the available context") as caught:
        answer(engine, [Message("user", "word " * 600)])
    assert caught.value.code == "context_length_exceeded"


def test_an_answer_that_had_filled_the_context_ends_there(engine: LlamaCppEngine) -> None:
    tokens, finish = answer(engine, STORY, prefix="word " * 600)
    assert (tokens, finish.reason) == ([], "length")


def test_a_wrong_request_is_a_permanent_failure(engine: LlamaCppEngine) -> None:
    wrong = Sampling(8, temperature="warm")  # type: ignore[arg-type]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine, STORY, wrong)
    assert caught.value.code == "invalid_request"


def test_no_tokens_asked_for_are_no_tokens_given(engine: LlamaCppEngine) -> None:
    assert answer(engine, STORY, Sampling(0)) == ([], Finish("length", engine.count(STORY), 0, 0))


def test_the_context_is_what_the_model_was_trained_for_at_most(engine: LlamaCppEngine) -> None:
    assert engine.context == 512
    assert (engine.name, engine.slots, engine.continues) == ("smollm2-135m-instruct", 2, True)


def test_a_closed_engine_stops_what_runs_and_refuses_more() -> None:
    # Given an engine with an answer under way
    closing = load_llamacpp(Settings(slots=1, context=256))
    items = closing.generate(STORY, prefix="", sampling=Sampling(200, temperature=0), cancelled=never)
    next(items)
    # When it is closed
    closing.close()
    # Then the answer ends early, and another isn't begun
    *_, finish = items
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"
    with pytest.raises(EngineError, match="closed"):
        answer(closing, STORY)
