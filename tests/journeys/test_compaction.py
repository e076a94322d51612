"""OpenAI's client compacts a conversation and continues it."""

import openai
import pytest
from openai import OpenAI

from tests.journeys.openai_types import assert_valid_model
from tests.journeys.stack import ON_REDIS, Installation

pytestmark = ON_REDIS

ANSWER = "Your flight to Lisbon leaves at 7:40 from gate B12. " + "I hope that you will enjoy it very much. " * 30


def conversation() -> list[dict[str, str]]:
    return [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "When does my flight leave?"},
        {"role": "assistant", "content": ANSWER},
    ]


def test_a_compacted_conversation_continues_with_fewer_tokens(client: OpenAI, scripted_installation: Installation):
    whole = client.responses.input_tokens.count(model="default", input=conversation())

    compacted = client.responses.compact(model="default", input=conversation())

    assert (compacted.object, compacted.usage.total_tokens) == ("response.compaction", 0)
    assert_valid_model(compacted)
    assert [item.type for item in compacted.output] == ["compaction"]
    again = client.responses.input_tokens.count(model="default", input=compacted.output)
    assert again.input_tokens < whole.input_tokens / 2
    following = [*compacted.output, {"role": "user", "content": "Which gate?"}]
    answer = client.responses.create(model="default", input=following)
    assert answer.status == "completed"
    items = client.responses.input_items.list(answer.id, order="asc").data
    assert [item.type for item in items] == ["compaction", "message"]
    assert not scripted_installation.rows("SELECT FROM jobs WHERE kind = 'context.compact'"), (
        "the job is deleted once its result is read"
    )


def test_a_stored_chain_is_compacted_by_its_id(client: OpenAI):
    first = client.responses.create(model="default", input="My locker has the code 4931.")

    compacted = client.responses.compact(model="default", previous_response_id=first.id)

    assert [item.type for item in compacted.output] == ["compaction"]


def test_errors_name_the_parameter(client: OpenAI):
    changed = {"type": "compaction", "encrypted_content": "sangha-1.e30="}
    foreign = {"type": "compaction", "encrypted_content": "gAAAAABo"}

    with pytest.raises(openai.BadRequestError, match="not of this server") as error:
        client.responses.create(model="default", input=[foreign, {"role": "user", "content": "hi"}])
    assert error.value.param == "input[0].encrypted_content"
    failed = client.responses.create(model="default", input=[changed, {"role": "user", "content": "hi"}])
    assert (failed.status, failed.error.code) == ("failed", "invalid_prompt")
    with pytest.raises(openai.BadRequestError, match="cannot be read"):
        client.responses.compact(model="default", input=[changed])
    with pytest.raises(openai.BadRequestError) as missing:
        client.responses.compact(model="default")
    assert missing.value.param == "input"
    with pytest.raises(openai.APIStatusError) as unknown:
        client.responses.compact(model="no-such-model", input="hi")
    assert unknown.value.code == "model_not_found"


def test_a_turn_above_its_threshold_begins_with_a_compaction(client: OpenAI):
    options = {"type": "compaction", "compact_threshold": 200}

    stream = client.responses.create(
        model="default", input=conversation() * 2, context_management=[options], stream=True
    )

    events = list(stream)
    for event in events:
        assert_valid_model(event)
    response = events[-1].response
    assert [item.type for item in response.output] == ["compaction", "message"]
    assert response.usage.input_tokens < 200
    following = client.responses.create(
        model="default", input="Which gate?", previous_response_id=response.id, context_management=[options]
    )
    assert [item.type for item in following.output] == ["message"]
