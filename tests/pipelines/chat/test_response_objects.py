"""Response objects: the built values match their types, which are the OpenAPI schema."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter

from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.call_items import call_item
from pipelines.chat.client_tools import ClientTool
from pipelines.chat.response_types import ResponseObject
from pipelines.inference.engine import GeneratedCall, Tool

LOOK_UP = ClientTool(Tool("look_up", "", {}), "function", "look_up")

REQUEST = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {"a": "b"},
    "model": "scripted",
    "temperature": None,
    "top_p": 0.5,
    "user": None,
}

QUEUED = Response(
    id="resp_1",
    account_id="acct_1",
    user_id="user_1",
    job_id="job_1",
    conversation_id=None,
    previous_id=None,
    thread="resp_1",
    request=REQUEST,
    input=[],
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)

COMPLETED = replace(
    QUEUED,
    conversation_id="conv_1",
    job_state="completed",
    output=[
        response_objects.message_item("msg_1", "hello", "completed"),
        call_item("1_0", LOOK_UP, GeneratedCall("look_up", "{}", 1)),
    ],
    usage=response_objects.usage_object(TokenUsage(3, 1, 2)),
    incomplete_details={"reason": "max_output_tokens"},
)

FAILED = replace(QUEUED, job_state="failed", job_error={"code": "invalid_request", "message": "The prompt is empty."})


@pytest.mark.parametrize("response", [QUEUED, COMPLETED, FAILED], ids=lambda response: response.status)
def test_a_response_object_has_exactly_the_fields_of_its_type(response):
    value = response_objects.response_object(response)

    TypeAdapter(ResponseObject).validate_python({**value, "output": list(value["output"])}, strict=True)
    assert set(value) == set(ResponseObject.__annotations__) - {"sangha"}


def test_a_response_shows_the_way_of_a_turn_that_was_moved_and_not_its_cost():
    route = {"endpoint": "groq", "model": "m", "home": "inference", "reason": "queue_full", "moves": 1, "cost": "0.1"}

    value = response_objects.response_object(replace(QUEUED, route=route))

    shown = {"endpoint": "groq", "model": "m", "reason": "queue_full", "moves": 1}
    assert value["sangha"] == {"route": shown}
    assert value["metadata"] == QUEUED.request["metadata"]


def test_a_status_can_be_set_before_the_row_changes():
    assert response_objects.response_object(QUEUED, "in_progress")["status"] == "in_progress"


def test_the_sampling_in_effect_is_that_of_the_request_or_of_the_engine():
    defaults = {"temperature": 0.8, "top_p": 0.95, "presence_penalty": 0.0, "frequency_penalty": 0.25}
    response = replace(QUEUED, request={**REQUEST, "sampling_defaults": defaults, "presence_penalty": -1})

    value = response_objects.response_object(response)

    assert (value["temperature"], value["top_p"]) == (0.8, 0.5)
    assert (value["presence_penalty"], value["frequency_penalty"]) == (-1.0, 0.25)


def test_a_turn_of_an_earlier_version_has_the_documented_sampling():
    value = response_objects.response_object(QUEUED)

    assert (value["temperature"], value["top_p"], value["frequency_penalty"]) == (1.0, 0.5, 0.0)


def test_an_error_code_outside_of_openais_list_becomes_the_reason():
    error = response_objects.response_object(FAILED)["error"]

    assert error == {"code": "invalid_prompt", "message": "The prompt is empty.", "reason": "invalid_request"}


def test_ids_of_a_responses_items_are_derived_from_its_id():
    assert response_objects.output_message_id(QUEUED) == "msg_1"
    assert call_item("1_2", LOOK_UP, GeneratedCall("look_up", "{}", 1))["call_id"] == "call_1_2"
