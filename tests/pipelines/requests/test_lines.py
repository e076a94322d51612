"""The requests of batches: what a line asks for, and the answer to it."""

from base64 import b64decode
from dataclasses import replace
from struct import pack, unpack

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from pydantic import TypeAdapter

from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.platform.errors import InvalidRequest, JobFailed, NotAllowed, NotFound, RequestError, Unavailable
from models.platform.settings import Settings
from models.turns.embeddings import EmbeddingResult
from pipelines.requests.lines import (
    LINE_ENDPOINTS,
    LineContext,
    LineTexts,
    LineTurns,
    line_embedding_error,
    line_embeddings,
    line_error,
    line_result,
    line_turn,
)
from pipelines.requests.serving import Serving

SERVING = Serving.of(Settings(engine="scripted"))
CALLER = Caller("user_1", "acct_1", "owner")
CONTEXT = LineContext(SERVING, None, CALLER, Limits())  # without tools of MCP servers no statement is needed

RESPONSES, CHAT, TEXT, EMBEDDINGS = LINE_ENDPOINTS
BODIES = {
    RESPONSES: {"input": "hello"},
    CHAT: {"messages": [{"role": "user", "content": "hello"}]},
    TEXT: {"prompt": "hello"},
    EMBEDDINGS: {"input": "hello"},
}
TURN_ENDPOINTS = (RESPONSES, CHAT, TEXT)

USAGE = {
    "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
}  # fmt: skip


def response(text="an answer", **fields):
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    return {
        "id": "resp_1", "created_at": 1, "model": "scripted", "status": "completed", "error": None, "metadata": {},
        "incomplete_details": None, "output": [message], "usage": USAGE, "service_tier": "flex", **fields,
    }  # fmt: skip


@pytest.mark.parametrize("endpoint", TURN_ENDPOINTS)
@pytest.mark.parametrize("tier", [None, "priority", "default"])
def test_turns_of_lines_are_background_work_whatever_their_tier(endpoint, tier):
    body = BODIES[endpoint] | ({"service_tier": tier} if tier and endpoint != TEXT else {})

    work = line_turn(endpoint, body, CONTEXT)

    assert isinstance(work, LineTurns)
    assert [turn.request["service_tier"] for turn in work.turns] == ["flex"]


@pytest.mark.parametrize(("store", "stored"), [(None, False), (False, False), (True, True)])
def test_a_response_of_a_line_is_stored_only_if_it_says_so(store, stored):
    (turn,) = line_turn(RESPONSES, {"input": "hello", "store": store}, CONTEXT).turns

    assert turn.request["store"] is stored


@pytest.mark.parametrize(
    ("endpoint", "option", "value"),
    [
        *[(endpoint, "stream", True) for endpoint in TURN_ENDPOINTS],
        (RESPONSES, "background", True),
        (RESPONSES, "conversation", "conv_1"),
        (RESPONSES, "conversation", {"id": "conv_1"}),
        (RESPONSES, "previous_response_id", "resp_1"),
    ],
)
def test_options_that_a_line_cannot_have_are_rejected_by_name(endpoint, option, value):
    with pytest.raises(InvalidRequest, match=f"Unsupported parameter: '{option}'") as error:
        line_turn(endpoint, {**BODIES[endpoint], option: value}, CONTEXT)

    assert (error.value.param, error.value.code) == (option, "unsupported_parameter")


@pytest.mark.parametrize("endpoint", TURN_ENDPOINTS)
def test_options_with_their_neutral_value_are_accepted(endpoint):
    assert line_turn(endpoint, {**BODIES[endpoint], "stream": False}, CONTEXT)


@pytest.mark.parametrize("endpoint", LINE_ENDPOINTS)
def test_an_unknown_model_is_not_found(endpoint):
    with pytest.raises(NotFound) as error:
        line_turn(endpoint, {**BODIES[endpoint], "model": "gpt-4o"}, CONTEXT)

    assert line_error(error.value).status_code == 404


def test_an_embedding_model_that_the_key_may_not_use_is_rejected():
    with pytest.raises(NotAllowed):
        line_turn(EMBEDDINGS, BODIES[EMBEDDINGS], replace(CONTEXT, limits=Limits(models=["scripted"])))


def test_a_key_without_memories_of_its_own_gets_none():
    caller = replace(CALLER, memory="named")

    (turn,) = line_turn(RESPONSES, BODIES[RESPONSES], replace(CONTEXT, caller=caller)).turns

    assert turn.request["memory"] == {"recall": False, "remember": False}


def test_texts_to_embed_are_returned_with_the_model_that_is_billed():
    work = line_turn(EMBEDDINGS, {"input": ["a", "b"], "dimensions": 3}, CONTEXT)

    assert isinstance(work, LineTexts)
    assert (work.texts, work.dimensions) == (["a", "b"], 3)
    assert work.model


def test_choices_of_a_completion_are_turns_with_seeds_of_their_own():
    work = line_turn(CHAT, {**BODIES[CHAT], "n": 3, "seed": 7}, CONTEXT)

    assert [turn.request["seed"] for turn in work.turns] == [7, 8, 9]


def test_the_answers_to_the_choices_are_one_completion():
    answer = line_result(CHAT, {**BODIES[CHAT], "n": 2}, [response("one"), response("two")], SERVING.models)

    completion = TypeAdapter(ChatCompletion).validate_python(answer.body)
    assert (answer.status_code, answer.failed) == (200, False)
    assert [choice.message.content for choice in completion.choices] == ["one", "two"]
    assert completion.usage.total_tokens == 10


def test_functions_are_called_under_the_name_of_the_request():
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    body = {**BODIES[CHAT], "functions": [{"name": "look"}]}

    answer = line_result(CHAT, body, [response(output=[call])], SERVING.models)

    assert answer.body["choices"][0]["message"]["function_call"] == {"name": "look", "arguments": "{}"}


def test_the_completion_of_a_text_has_the_prompt_that_is_echoed():
    answer = line_result(TEXT, {"prompt": "Say: ", "echo": True}, [response()], SERVING.models)

    assert answer.body["choices"][0]["text"] == "Say: an answer"


def test_a_response_is_the_answer_as_it_is():
    answer = line_result(RESPONSES, BODIES[RESPONSES], [response()], SERVING.models)

    assert (answer.status_code, answer.body, answer.failed) == (200, response(), False)


def test_a_failed_response_is_returned_as_over_http_and_belongs_in_the_error_file():
    failed = response(status="failed", error={"message": "no", "code": "server_error", "reason": "server_error"})

    answer = line_result(RESPONSES, BODIES[RESPONSES], [failed], SERVING.models)

    assert (answer.status_code, answer.body, answer.failed) == (200, failed, True)


@pytest.mark.parametrize(
    ("reason", "status", "param"), [("server_error", 500, None), ("context_length_exceeded", 400, "messages")]
)
def test_the_error_of_one_choice_is_the_answer(reason, status, param):
    failed = response(status="failed", error={"message": "no", "code": reason, "reason": reason})

    answer = line_result(CHAT, BODIES[CHAT], [response(), failed], SERVING.models)

    assert (answer.status_code, answer.failed) == (status, True)
    assert (answer.body["error"]["param"], answer.body["error"]["code"]) == (param, reason)


def test_embeddings_have_the_encoding_of_the_request():
    result = EmbeddingResult("a model", [pack("<2f", 0.5, 2)], 3)

    plain = line_embeddings(BODIES[EMBEDDINGS], result)
    encoded = line_embeddings({**BODIES[EMBEDDINGS], "encoding_format": "base64"}, result)

    assert TypeAdapter(CreateEmbeddingResponse).validate_python(plain.body).data[0].embedding == [0.5, 2]
    assert unpack("<2f", b64decode(encoded.body["data"][0]["embedding"])) == (0.5, 2)


def test_a_text_that_is_too_long_is_an_error_of_the_input():
    answer = line_embedding_error({"code": "context_length_exceeded", "message": "too long"})

    assert (answer.status_code, answer.body["error"]["param"], answer.failed) == (400, "input", True)


@pytest.mark.parametrize(
    ("error", "status"), [(RequestError("no"), 400), (JobFailed("no"), 500), (Unavailable("no"), 503)]
)
def test_every_kind_of_error_is_an_answer(error, status):
    answer = line_error(error)

    assert (answer.status_code, answer.body["error"]["message"], answer.failed) == (status, "no", True)
