"""Given a turn's events, when they are told as chunks, then the client reads the answer, or hears that it can't."""

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
from web.api.turns.chat.chunks import DONE, CompletionChunks
from web.api.turns.chat.objects import completion_object

SETTINGS = Settings(engine="scripted")
RESPONSE = Response(
    id="resp_1", account_id="acct", user_id=None, job_id="job_1", conversation_id=None, previous_id=None,
    thread="resp_1", request={"model": "scripted"}, input=[], created_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
USAGE = {
    "input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip


class Journal:
    """Events that are told one after another."""

    def __init__(self):
        self.events = []

    def __call__(self, kind, **payload):
        self.events.append(event(len(self.events), kind, payload))

    def says(self, *pieces):
        for piece in pieces:
            self("response.output_text.delta", delta=piece)

    def calls(self, place, call_id, *pieces, name="look"):
        item = {"id": f"fc_{place}", "type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
        self("response.output_item.added", output_index=place, item=item)
        for piece in pieces:
            self("response.function_call_arguments.delta", output_index=place, delta=piece)

    def ends(self, **shown):
        self("response.completed", response={**completed(), **shown})


def completed(text="", *calls, **more):
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    return {
        "id": "resp_1", "created_at": 1, "model": "scripted", "status": "completed", "incomplete_details": None,
        "output": [*([message] if text else []), *calls], "usage": USAGE, "metadata": {}, "error": None, **more,
    }  # fmt: skip


def told(events, *, include_usage=False):
    """The chunks as the client parses them, strictly; and what comes after the last of them."""
    chunks = CompletionChunks(RESPONSE, SETTINGS, include_usage=include_usage)
    frames = [chunks.opening(), *(frame for one in events for frame in chunks.frames(one))]
    rest = frames.pop() if frames[-1] == DONE or b'"error"' in frames[-1] else b""
    values = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames]
    for value in values:
        TypeAdapter(ChatCompletionChunk).validate_python(value, strict=True)
    return values, rest


def text_of(values):
    return "".join(choice["delta"].get("content") or "" for value in values for choice in value["choices"])


def calls_of(values):
    """The calls as clients put them together: by index."""
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
def test_the_chunks_joined_are_the_answer(text, calls):
    journal = Journal()
    journal.says(*text)
    for place, arguments in enumerate(calls, start=1):
        journal.calls(place, f"call_{place}", *arguments)
    journal.ends(output=[{"type": "function_call"} for _ in calls])

    values, rest = told(journal.events)

    assert text_of(values) == "".join(text)
    assert calls_of(values) == [
        {"id": f"call_{place}", "name": "look", "arguments": "".join(arguments)}
        for place, arguments in enumerate(calls, start=1)
    ]
    assert values[0]["choices"][0]["delta"]["role"] == "assistant"
    assert values[-1]["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")
    assert rest == DONE


@given(text=st.text(min_size=1), cuts=st.lists(st.integers(0, 50), max_size=4), more=st.text())
def test_an_answer_that_begins_again_alike_goes_on_where_the_client_is(text, cuts, more):
    journal = Journal()
    for cut in cuts:
        journal.says(*text[:cut])
        journal("sangha:answer.restarted", discarded_tokens=1)
    journal.says(*(text + more))
    journal.ends()

    values, rest = told(journal.events)

    assert (text_of(values), rest) == (text + more, DONE)


@given(text=st.text(min_size=1, max_size=20), kept=st.integers(0, 20), more=st.text(max_size=20))
def test_after_a_rewind_the_client_gets_only_what_it_has_not_read(text, kept, more):
    kept = min(kept, len(text))
    first, second = Journal(), Journal()
    first.says(*text)
    second.says(*text[:kept])
    second("sangha:journal.rewound", job_id="job_1")
    second.says(*(text[kept:] + more))
    second.ends()

    values, rest = told([*first.events, *second.events[kept:]])

    assert (text_of(values), rest) == (text + more, DONE)


def test_another_answer_than_the_one_that_was_read_ends_the_stream_with_an_error():
    journal = Journal()
    journal.says("one ", "two ")
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.says("one ", "three ")
    journal.says("four")
    journal.ends()

    values, rest = told(journal.events)

    assert text_of(values) == "one two "
    assert orjson.loads(rest.removeprefix(b"data: "))["error"]["code"] == "answer_restarted"


def test_a_shorter_answer_than_the_one_that_was_read_is_no_answer():
    journal = Journal()
    journal.says("one ", "two ")
    journal.calls(1, "call_1", "{}")
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.says("one ", "two ")
    journal.ends()

    assert b"answer_restarted" in told(journal.events)[1]


def test_calls_that_come_again_are_told_once():
    journal = Journal()
    journal.calls(0, "call_1", '{"a"')
    journal("sangha:answer.restarted", discarded_tokens=2)
    journal.calls(0, "call_1", '{"a"', ": 1}")
    journal.ends(output=[{"type": "function_call"}])

    values, rest = told(journal.events)

    assert (calls_of(values), rest) == ([{"id": "call_1", "name": "look", "arguments": '{"a": 1}'}], DONE)


def test_usage_comes_last_and_is_null_before():
    journal = Journal()
    journal.says("hello")
    journal.ends()

    values, _ = told(journal.events, include_usage=True)

    assert [value["usage"] for value in values[:-1]] == [None] * (len(values) - 1)
    assert values[-1]["choices"] == []
    assert (values[-1]["usage"]["prompt_tokens"], values[-1]["usage"]["completion_tokens"]) == (3, 4)
    assert "usage" not in told(journal.events)[0][0]


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        ({"status": "failed", "error": {"message": "too long", "reason": "context_length_exceeded"}},
         "context_length_exceeded"),
        ({"status": "failed", "error": {"message": "noted", "reason": "server_error"}}, "server_error"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)  # fmt: skip
def test_a_turn_without_an_answer_is_an_error_frame(shown, code):
    journal = Journal()
    journal.says("begun")
    journal("response.failed", response={**completed(), **shown})

    error = orjson.loads(told(journal.events)[1].removeprefix(b"data: "))["error"]

    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}


def test_a_turn_that_was_cancelled_in_the_queue_is_one_too():
    journal = Journal()
    journal("sangha:job.cancelled", job_id="job_1")

    assert b'"cancelled"' in told(journal.events)[1]


def test_an_ended_response_is_a_completion():
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    plain = completion_object(completed("hello"), SETTINGS)
    calling = completion_object(completed("", call), SETTINGS)
    short = completion_object(completed("hel", incomplete_details={"reason": "max_output_tokens"}), SETTINGS)

    for shown in (plain, calling, short):
        TypeAdapter(ChatCompletion).validate_python(shown, strict=True)
    assert (plain["id"], plain["choices"][0]["message"]["content"]) == ("chatcmpl-1", "hello")
    assert "tool_calls" not in plain["choices"][0]["message"]
    assert (calling["choices"][0]["message"]["content"], calling["choices"][0]["finish_reason"]) == (None, "tool_calls")
    assert short["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("shown", "error"),
    [
        ({"status": "failed", "error": {"message": "m", "reason": "context_length_exceeded"}}, InvalidRequest),
        ({"status": "failed", "error": {"message": "m", "reason": "worker_lost"}}, JobFailed),
        ({"status": "failed", "error": None}, JobFailed),
        ({"status": "cancelled"}, Conflict),
        ({"status": "in_progress"}, WaitTimedOut),
    ],
)
def test_a_turn_without_an_answer_is_no_completion(shown, error):
    with pytest.raises(error):
        completion_object({**completed(), **shown}, SETTINGS)
