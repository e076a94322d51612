"""Converting a turn's events to chunks: restarts, rewinds, tool calls, usage and errors."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from models.journal.events import event
from models.platform.errors import Conflict, InvalidRequest, JobFailed, WaitTimedOut
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.requests.chat.completion_object import completion_object, turn_error
from pipelines.requests.serving import Serving
from web.api.turns.chat.chunks import ChatChunks, chunk_head
from web.api.turns.choice_chunks import CompletionStream
from web.streams.sse import DONE

MODELS = Serving.of(Settings(engine="scripted")).models
RESPONSE = Response(
    id="resp_1", account_id="acct", user_id=None, job_id="job_1", conversation_id=None, previous_id=None,
    thread="resp_1", request={"model": "scripted"}, input=[], created_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
USAGE = {
    "input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip


class Journal:
    """A list of events with consecutive sequence numbers, built by appending."""

    def __init__(self):
        self.events = []

    def __call__(self, kind, **payload):
        self.events.append(event(len(self.events), kind, payload))

    def append_text(self, *pieces, message="msg_1"):
        for piece in pieces:
            self("response.output_text.delta", item_id=message, delta=piece)

    def append_call(self, index, call_id, *pieces, name="look"):
        item = {"id": f"fc_{index}", "type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
        self("response.output_item.added", output_index=index, item=item)
        for piece in pieces:
            self("response.function_call_arguments.delta", output_index=index, delta=piece)

    def end(self, **response):
        self("response.completed", response={**completed(), **response})


def completed(text="", *calls, **fields):
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    return {
        "id": "resp_1", "created_at": 1, "model": "scripted", "status": "completed", "incomplete_details": None,
        "output": [*([message] if text else []), *calls], "usage": USAGE, "metadata": {}, "error": None,
        "service_tier": "default", **fields,
    }  # fmt: skip


def parse_frames(events, *, include_usage=False):
    """Return the chunks, validated strictly with OpenAI's types, and the frame after the last one."""
    chunks = ChatChunks(RESPONSE, CompletionStream(chunk_head(RESPONSE, MODELS), include_usage=include_usage))
    frames = [chunks.first_chunk(), *(frame for event_ in events for frame in chunks.frames(event_))]
    rest = frames.pop() if frames[-1] == DONE or b'"error"' in frames[-1] else b""
    values = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames]
    for value in values:
        TypeAdapter(ChatCompletionChunk).validate_python(value, strict=True)
    return values, rest


def text_of(values):
    return "".join(choice["delta"].get("content") or "" for value in values for choice in value["choices"])


def calls_of(values):
    """Return the tool calls as clients assemble them, by index."""
    calls = {}
    for value in values:
        for choice in value["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.get("id") or ""
                for name in ("name", "arguments"):
                    call[name] += piece["function"].get(name) or ""
    return [calls[index] for index in sorted(calls)]


PIECES = st.lists(st.text(min_size=1))


@given(text=PIECES, calls=st.lists(PIECES, max_size=3))
def test_joined_chunks_are_the_answer(text, calls):
    journal = Journal()
    journal.append_text(*text)
    for index, arguments in enumerate(calls, start=1):
        journal.append_call(index, f"call_{index}", *arguments)
    journal.end(output=[{"type": "function_call"} for _ in calls])

    values, rest = parse_frames(journal.events)

    assert text_of(values) == "".join(text)
    assert calls_of(values) == [
        {"id": f"call_{index}", "name": "look", "arguments": "".join(arguments)}
        for index, arguments in enumerate(calls, start=1)
    ]
    assert values[0]["choices"][0]["delta"]["role"] == "assistant"
    assert values[-1]["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")
    assert rest == DONE


@given(text=st.text(min_size=1), cuts=st.lists(st.integers(0, 50), max_size=4), rest_of_text=st.text())
def test_a_restarted_answer_with_the_same_text_continues_the_stream(text, cuts, rest_of_text):
    journal = Journal()
    for cut in cuts:
        journal.append_text(*text[:cut])
        journal("sangha:answer.restarted", discarded_tokens=1)
    journal.append_text(*(text + rest_of_text))
    journal.end()

    values, rest = parse_frames(journal.events)

    assert (text_of(values), rest) == (text + rest_of_text, DONE)


@given(text=st.text(min_size=1, max_size=20), kept=st.integers(0, 20), rest_of_text=st.text(max_size=20))
def test_after_a_rewind_only_new_text_is_sent(text, kept, rest_of_text):
    kept = min(kept, len(text))
    first, second = Journal(), Journal()
    first.append_text(*text)
    second.append_text(*text[:kept])
    second("sangha:journal.rewound", job_id="job_1")
    second.append_text(*(text[kept:] + rest_of_text))
    second.end()

    values, rest = parse_frames([*first.events, *second.events[kept:]])

    assert (text_of(values), rest) == (text + rest_of_text, DONE)


def test_chunks_show_the_tier_that_serves_once_it_is_known():
    journal = Journal()
    journal.append_text("a")
    journal("response.in_progress", response={**completed(), "service_tier": "priority"})
    journal.append_text("b")
    journal.end(service_tier="priority")

    values, _ = parse_frames(journal.events, include_usage=True)

    assert [value["service_tier"] for value in values] == ["default", "default", *["priority"] * 3]


def test_a_restarted_answer_with_other_text_ends_the_stream_with_an_error():
    journal = Journal()
    journal.append_text("one ", "two ")
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.append_text("one ", "three ")
    journal.append_text("four")
    journal.end()

    values, rest = parse_frames(journal.events)

    assert text_of(values) == "one two "
    assert orjson.loads(rest.removeprefix(b"data: "))["error"]["code"] == "answer_restarted"


def test_a_restarted_answer_that_is_shorter_ends_the_stream_with_an_error():
    journal = Journal()
    journal.append_text("one ", "two ")
    journal.append_call(1, "call_1", "{}")
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.append_text("one ", "two ")
    journal.end()

    assert b"answer_restarted" in parse_frames(journal.events)[1]


def test_repeated_tool_calls_are_sent_once():
    journal = Journal()
    journal.append_call(0, "call_1", '{"a"')
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.append_call(0, "call_1", '{"a"', ": 1}")
    journal.end(output=[{"type": "function_call"}])

    values, rest = parse_frames(journal.events)

    assert (calls_of(values), rest) == ([{"id": "call_1", "name": "look", "arguments": '{"a": 1}'}], DONE)


def test_usage_is_in_the_last_chunk_and_null_before():
    journal = Journal()
    journal.append_text("hello")
    journal.end()

    values, _ = parse_frames(journal.events, include_usage=True)

    assert [value["usage"] for value in values[:-1]] == [None] * (len(values) - 1)
    assert values[-1]["choices"] == []
    assert (values[-1]["usage"]["prompt_tokens"], values[-1]["usage"]["completion_tokens"]) == (3, 4)
    assert "usage" not in parse_frames(journal.events)[0][0]


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ({"status": "failed", "error": {"message": "too long", "reason": "context_length_exceeded"}},
         "context_length_exceeded"),
        ({"status": "failed", "error": {"message": "noted", "reason": "server_error"}}, "server_error"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)  # fmt: skip
def test_a_turn_without_an_answer_ends_with_an_error_frame(response, code):
    journal = Journal()
    journal.append_text("partial")
    journal("response.failed", response={**completed(), **response})

    error = orjson.loads(parse_frames(journal.events)[1].removeprefix(b"data: "))["error"]

    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}


def test_a_turn_cancelled_in_the_queue_ends_with_an_error_frame():
    journal = Journal()
    journal("sangha:job.cancelled", job_id="job_1")

    assert b'"cancelled"' in parse_frames(journal.events)[1]


def test_an_ended_response_becomes_a_completion():
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    plain = completion_object([completed("hello")], MODELS)
    with_call = completion_object([completed("", call)], MODELS)
    truncated = completion_object([completed("hel", incomplete_details={"reason": "max_output_tokens"})], MODELS)

    for response in (plain, with_call, truncated):
        TypeAdapter(ChatCompletion).validate_python(response, strict=True)
    assert (plain["id"], plain["choices"][0]["message"]["content"]) == ("chatcmpl-1", "hello")
    assert "tool_calls" not in plain["choices"][0]["message"]
    assert (with_call["choices"][0]["message"]["content"], with_call["choices"][0]["finish_reason"]) == (
        None,
        "tool_calls",
    )
    assert truncated["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"status": "failed", "error": {"message": "m", "reason": "context_length_exceeded"}}, InvalidRequest),
        ({"status": "failed", "error": {"message": "m", "reason": "worker_lost"}}, JobFailed),
        ({"status": "failed", "error": None}, JobFailed),
        ({"status": "cancelled"}, Conflict),
        ({"status": "in_progress"}, WaitTimedOut),
    ],
)
def test_a_response_without_an_answer_has_an_error(response, error):
    assert isinstance(turn_error({**completed(), **response}), error)


def logprob(token):
    return {"token": token, "logprob": -0.5, "top_logprobs": []}


def logprobs_of(values):
    choices = [choice for value in values for choice in value["choices"] if choice["logprobs"]]
    return [entry["token"] for choice in choices for entry in choice["logprobs"]["content"]]


def test_log_probabilities_are_sent_once_with_their_text():
    # Given an answer that is begun again within a delta
    journal = Journal()
    journal("response.output_text.delta", delta="ab", logprobs=[logprob("a"), logprob("b")])
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal("response.output_text.delta", delta="abc", logprobs=[logprob("a"), logprob("b"), logprob("c")])
    journal.end()
    # When it is converted
    values, _ = parse_frames(journal.events)
    # Then each token is there once, with its bytes
    assert (text_of(values), logprobs_of(values)) == ("abc", ["a", "b", "c"])
    [first, *_] = [choice["logprobs"] for value in values for choice in value["choices"] if choice["logprobs"]]
    assert first["content"][0]["bytes"] == [97]


@pytest.mark.parametrize("kind", ["response.reasoning_text.delta", "response.reasoning_summary_text.delta"])
def test_reasoning_is_sent_before_the_text_and_once(kind):
    journal = Journal()
    journal(kind, delta="Let ")
    journal("sangha:answer.restarted", discarded_tokens=1)
    journal(kind, delta="Let me")
    journal.append_text("Yes")
    journal.end()
    values, _ = parse_frames(journal.events)
    reasoning = [choice["delta"].get("reasoning_content") for value in values for choice in value["choices"]]
    assert ([text for text in reasoning if text], text_of(values)) == (["Let ", "me"], "Yes")


def test_a_completion_has_reasoning_and_log_probabilities():
    part = {"type": "output_text", "text": "Yes", "logprobs": [logprob("Yes")]}
    reasoning = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Let me"}]}
    response = completed() | {"output": [reasoning, {"type": "message", "content": [part]}]}
    [choice] = completion_object([response], MODELS)["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == ("Let me", "Yes")
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["Yes"]


def test_the_texts_of_two_generations_are_separated_as_in_the_whole_completion():
    journal, messages = (
        Journal(),
        [
            {"type": "message", "content": [{"type": "output_text", "text": text}]}
            for text in ("Let me see.", "", "Done.")
        ],
    )
    journal.append_text("Let me ", "see.")
    journal.append_text("Do", "ne.", message="msg_1s1")
    journal.end(output=messages)

    streamed, _ = parse_frames(journal.events)

    whole = completion_object([completed(output=messages)], MODELS)
    assert text_of(streamed) == whole["choices"][0]["message"]["content"] == "Let me see.\n\nDone."


def test_a_restart_of_the_second_generation_keeps_the_first():
    journal = Journal()
    journal.append_text("Let me see.")
    since = len(journal.events)
    journal.append_text("Do", message="msg_1s1")
    journal("sangha:answer.restarted", item_id="msg_1s1", discarded_tokens=1, since=since)
    journal.append_text("Done.", message="msg_1s1")
    journal.end()

    streamed, rest = parse_frames(journal.events)

    assert (text_of(streamed), rest) == ("Let me see.\n\nDone.", DONE)
