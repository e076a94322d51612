"""Given a body that was parsed, when it becomes a turn, then all of it is there and nothing is made up."""

import pytest

from models.errors import InvalidRequest
from models.settings import Settings
from web.turns import CreateResponse, checked_model, input_items, new_turn

SETTINGS = Settings(engine="scripted")


def parsed(**body) -> CreateResponse:
    return CreateResponse.model_validate({"input": "hello", **body})


def test_what_was_left_out_is_left_to_the_engine():
    turn = new_turn(parsed(), SETTINGS)

    assert turn.request == {
        "model": "scripted", "instructions": None, "background": False, "metadata": {}, "temperature": None,
        "top_p": None, "max_output_tokens": None, "user": None,
    }  # fmt: skip
    assert (turn.conversation_id, turn.previous_id) == (None, None)


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_named_either_way(conversation):
    assert new_turn(parsed(conversation=conversation), SETTINGS).conversation_id == "conv_1"


def test_a_turn_goes_on_in_one_place_only():
    with pytest.raises(InvalidRequest) as refusal:
        new_turn(parsed(conversation="conv_1", previous_response_id="resp_1"), SETTINGS)

    assert refusal.value.param == "previous_response_id"


@pytest.mark.parametrize("name", [None, "default", "scripted"])
def test_the_model_answers_to_its_names(name):
    assert checked_model(name, SETTINGS) == "scripted"


def test_other_models_are_refused_with_those_that_are_there():
    with pytest.raises(InvalidRequest, match=r"'gpt-4o' does not exist; there are 'scripted' and 'default'"):
        checked_model("gpt-4o", SETTINGS)


def test_a_text_is_a_message_of_the_user():
    (item,) = input_items("hello")

    assert item["id"].startswith("msg_")
    assert (item["type"], item["role"], item["status"]) == ("message", "user", "completed")
    assert item["content"] == [{"type": "input_text", "text": "hello"}]


def test_output_can_be_given_back_as_it_came():
    given = {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}],
    }  # fmt: skip

    (item,) = input_items(parsed(input=[given]).input)

    assert item["content"] == given["content"]
    assert item["id"] != "msg_1", "an id of the caller's could be another account's"
