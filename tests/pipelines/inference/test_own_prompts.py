"""Reported cached tokens depend on the earlier turns of a thread only, not on what other accounts have sent."""

from types import SimpleNamespace

import pytest

from pipelines.inference.engine import PLAIN_TEXT, EngineError, Finish, Message, OutputFormat, Tool, ToolCall
from pipelines.inference.own_prompts import ANSWER_HEADER_TOKENS, BLOCK_TOKENS, OwnPrompts

SYSTEM, QUESTION = Message("system", "word " * 30), Message("user", "word " * 300)
ANSWER, NEXT = Message("assistant", "word " * 20), Message("user", "a guess")
PROMPT = [SYSTEM, QUESTION]


def count_words(prompt, output_format=PLAIN_TEXT):
    return sum(len(message.content.split()) for message in prompt)


def own_prompts(*, counts_exactly=True, count=count_words, **options):
    return OwnPrompts(SimpleNamespace(counts_exactly=counts_exactly, count=count), **options)


def finish(prompt, cached=100_000):
    return Finish("stop", count_words(prompt), cached, 20)


def record(own, thread="a", prompt=PROMPT, output_format=PLAIN_TEXT, answer=ANSWER):
    own.record(thread, prompt, output_format, answer, finish(prompt))


def cached(own, prompt, thread="a", output_format=PLAIN_TEXT, cached=100_000):
    return own.cached_tokens(thread, prompt, output_format, finish(prompt, cached))


def test_a_thread_without_an_earlier_turn_reports_none():
    own = own_prompts()
    assert cached(own, PROMPT) == 0
    record(own, "b")
    assert cached(own, PROMPT) == 0


@pytest.mark.parametrize(
    ("prompt", "shared"),
    [
        ([*PROMPT, ANSWER, NEXT], 350),
        ([*PROMPT, Message("assistant", ANSWER.content.strip()), NEXT], 350),
        ([*PROMPT, NEXT], 330),
        ([SYSTEM, Message("system", "memories"), QUESTION, ANSWER, NEXT], 30),
        ([Message("system", "a guess " * 40), QUESTION, ANSWER, NEXT], 0),
        ([QUESTION, ANSWER, NEXT], 0),
        ([SYSTEM, Message("assistant", QUESTION.content), NEXT], 30),
        ([SYSTEM, Message("user", QUESTION.content + "and a guess"), NEXT], 30),
    ],
)
def test_no_more_is_reported_than_the_prompts_share(prompt, shared):
    own = own_prompts()
    record(own)
    assert cached(own, prompt) == max(0, shared - ANSWER_HEADER_TOKENS)


def test_the_number_of_a_prompt_that_has_left_the_cache_is_not_reported():
    own = own_prompts()
    record(own)
    assert cached(own, [*PROMPT, ANSWER, NEXT], cached=200) == 0
    assert cached(own, [*PROMPT, ANSWER, NEXT], cached=0) == 0


def test_other_tools_are_another_beginning():
    own, tools = own_prompts(), OutputFormat(tools=(Tool("a", "a guess", {}),))
    record(own)
    assert cached(own, [*PROMPT, ANSWER, NEXT], output_format=tools) == 0


def test_calls_are_part_of_an_answer():
    own, call = own_prompts(), ToolCall("call_1", "a", "{}")
    record(own, answer=Message("assistant", ANSWER.content, (call,)))
    assert cached(own, [*PROMPT, Message("assistant", ANSWER.content, (call,)), NEXT]) == 350 - ANSWER_HEADER_TOKENS
    assert cached(own, [*PROMPT, ANSWER, NEXT]) == 330 - ANSWER_HEADER_TOKENS


@pytest.mark.parametrize(
    ("prompt", "in_cache", "reported"),
    [
        ([*PROMPT, ANSWER, NEXT], 10_000, 330 - ANSWER_HEADER_TOKENS),
        ([*PROMPT, ANSWER, NEXT], 256, 256),
        ([*PROMPT, ANSWER, NEXT], 330 - ANSWER_HEADER_TOKENS - BLOCK_TOKENS, 0),
        ([SYSTEM, NEXT], 10_000, 0),
    ],
)
def test_only_the_count_of_an_endpoint_is_certain_where_ours_is_an_estimate(prompt, in_cache, reported):
    own = own_prompts(counts_exactly=False)
    record(own)
    assert cached(own, prompt, cached=in_cache) == reported


def test_a_beginning_that_cannot_be_counted_is_not_reported():
    def count(prompt, output_format):
        raise EngineError("the template needs a user message")

    own = own_prompts(count=count)
    record(own)
    assert cached(own, [*PROMPT, ANSWER, NEXT]) == 0


def test_the_threads_used_last_are_kept():
    own = own_prompts(max_threads=2)
    for thread in ("a", "b", "a", "c"):
        record(own, thread)
    assert [bool(cached(own, [*PROMPT, ANSWER, NEXT], thread)) for thread in "abc"] == [True, False, True]
