"""llama.cpp with the bundled SmolLM2: continuing, counting, stopping, failing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.errors import PermanentFailure
from models.settings import Settings
from pipelines.inference.engine import EngineError, Finish, Message, Sampling, Token
from pipelines.inference.llamacpp import LlamaCpp, load

STORY = [Message("user", "Write a long story about a dragon and a knight.")]
GREEDY = Sampling(max_output_tokens=24, temperature=0)
ENDLESS = Sampling(max_output_tokens=400, temperature=0)


def never() -> bool:
    return False


def answer(
    engine: LlamaCpp,
    prompt: list[Message],
    sampling: Sampling = GREEDY,
    prefix: str = "",
    cancelled: Callable[[], bool] = never,
) -> tuple[list[Token], Finish]:
    *tokens, finish = engine.generate(prompt, prefix=prefix, sampling=sampling, cancelled=cancelled)
    assert isinstance(finish, Finish)
    assert all(isinstance(token, Token) for token in tokens)
    return [token for token in tokens if isinstance(token, Token)], finish


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def busy_slots(engine: LlamaCpp) -> int:
    slots: list[dict[str, bool]] = engine._loopback.ask("GET", "/slots")  # type: ignore[assignment]
    return sum(slot["is_processing"] for slot in slots)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_prefix_is_continued_as_if_nothing_had_happened(engine: LlamaCpp, cut: int) -> None:
    # Given an answer that was not interrupted
    whole, _ = answer(engine, STORY)
    # When another attempt gets its beginning as the prefix
    left = 24 - sum(token.count for token in whole[:cut])
    rest, finish = answer(engine, STORY, Sampling(left, temperature=0), text(whole[:cut]))
    # Then only what was missing comes, and the prefix isn't billed as prompt
    assert text(rest) == text(whole[cut:])
    assert finish.prompt_tokens == engine.count(STORY)


@pytest.mark.parametrize("prompt", [STORY, [Message("user", "Repeat only this: 🦙🦙🦙🦙")]])
def test_what_is_counted_is_what_came(engine: LlamaCpp, prompt: list[Message]) -> None:
    # When an answer runs into its limit
    tokens, finish = answer(engine, prompt)
    # Then the counts add up, also where several tokens make one character
    assert finish.reason == "length"
    assert finish.generated_tokens == sum(token.count for token in tokens)
    assert 24 - 3 <= finish.generated_tokens <= 24
    assert finish.prompt_tokens == engine.count(prompt)


def test_an_answer_ends_at_a_stop_text_and_leaves_it_out(engine: LlamaCpp) -> None:
    whole, _ = answer(engine, STORY)
    stop = f" {text(whole).split()[8]}"
    tokens, finish = answer(engine, STORY, Sampling(24, temperature=0, stop=(stop, "")))
    assert finish.reason == "stop"
    assert text(tokens) == text(whole).partition(stop)[0]
    assert finish.generated_tokens == sum(token.count for token in tokens)


def test_the_next_turn_reads_only_what_is_new(engine: LlamaCpp) -> None:
    # Given a turn that was answered
    prompt = [Message("system", "You are brief."), Message("user", "Name a colour.")]
    first, _ = answer(engine, prompt)
    # When the conversation goes on
    _, finish = answer(engine, [*prompt, Message("assistant", text(first)), Message("user", "Another?")])
    # Then what went before is still held
    assert engine.count(prompt) <= finish.cached_tokens < finish.prompt_tokens


def test_an_assistant_message_at_the_end_is_continued_with_its_prefix(engine: LlamaCpp) -> None:
    begun = [*STORY, Message("assistant", "Once upon")]
    tokens, finish = answer(engine, begun, prefix=" a time")
    assert text(tokens) == text(answer(engine, STORY, prefix="Once upon a time")[0])
    assert finish.prompt_tokens == engine.count(begun)


def test_a_cancelled_answer_stops_and_frees_its_slot(engine: LlamaCpp) -> None:
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


def test_closing_the_iterator_frees_its_slot(engine: LlamaCpp) -> None:
    items = engine.generate(STORY, prefix="", sampling=ENDLESS, cancelled=never)
    next(items)
    assert busy_slots(engine) == 1
    items.close()  # type: ignore[attr-defined]
    wait_for(lambda: busy_slots(engine) == 0, seconds=1)


def test_what_cancelled_raises_comes_out_and_frees_the_slot(engine: LlamaCpp) -> None:
    def deadline() -> bool:
        raise TimeoutError("too late")

    with pytest.raises(TimeoutError, match="too late"):
        answer(engine, STORY, ENDLESS, cancelled=deadline)
    wait_for(lambda: busy_slots(engine) == 0, seconds=2)


def test_a_cancel_while_the_prompt_is_read_does_not_wait_for_it(engine: LlamaCpp) -> None:
    # Given a prompt that takes many batches to read
    long = [Message("user", " ".join(f"{number * 7919}" for number in range(60)))]
    # When it is cancelled at the first look
    looks: Iterator[bool] = iter([False, False, True])
    tokens, finish = answer(engine, long, cancelled=lambda: next(looks))
    # Then it ends without a token
    assert (tokens, finish.reason) == ([], "cancelled")
    wait_for(lambda: busy_slots(engine) == 0, seconds=3)


def test_one_that_waits_for_a_slot_can_be_cancelled(engine: LlamaCpp) -> None:
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


def test_two_are_answered_at_once(engine: LlamaCpp) -> None:
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


def test_a_prompt_longer_than_the_context_is_a_permanent_failure(engine: LlamaCpp) -> None:
    with pytest.raises(PermanentFailure, match="exceeds the available context") as caught:
        answer(engine, [Message("user", "word " * 600)])
    assert caught.value.code == "context_length_exceeded"


def test_an_answer_that_had_filled_the_context_ends_there(engine: LlamaCpp) -> None:
    tokens, finish = answer(engine, STORY, prefix="word " * 600)
    assert (tokens, finish.reason) == ([], "length")


def test_a_wrong_request_is_a_permanent_failure(engine: LlamaCpp) -> None:
    wrong = Sampling(8, temperature="warm")  # type: ignore[arg-type]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine, STORY, wrong)
    assert caught.value.code == "invalid_request"


def test_no_tokens_asked_for_are_no_tokens_given(engine: LlamaCpp) -> None:
    assert answer(engine, STORY, Sampling(0)) == ([], Finish("length", engine.count(STORY), 0, 0))


def test_the_context_is_what_the_model_was_trained_for_at_most(engine: LlamaCpp) -> None:
    assert engine.context == 512
    assert (engine.name, engine.slots, engine.continues) == ("smollm2-135m-instruct", 2, True)


def test_a_closed_engine_stops_what_runs_and_refuses_more() -> None:
    # Given an engine with an answer under way
    closing = load(Settings(slots=1, context=256))
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
