"""The unmodified official client works with responses, models and errors."""

import time

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseItemList
from openai.types.responses.input_token_count_response import InputTokenCountResponse

from bench.harness.waiting import wait_until
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.inference.engine import Message as EngineMessage
from pipelines.inference.engine import Sampling, Token
from pipelines.inference.llamacpp.engine import load_llamacpp
from tests.journeys.openai_types import assert_valid, assert_valid_model
from tests.journeys.responses import ADD, ITEMS, TEXT, wait_for_end
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

pytestmark = ON_REDIS


@pytest.mark.parametrize("question", ["one two", ITEMS])
def test_response_without_streaming(client: OpenAI, question):
    response = client.responses.create(
        model="default", input=question, instructions="Be kind.", metadata={"topic": "words"}, temperature=0, top_p=0.5
    )

    assert_valid_model(response)
    assert (response.status, response.output_text, response.metadata) == ("completed", TEXT, {"topic": "words"})
    assert (response.instructions, response.temperature, response.top_p) == ("Be kind.", 0, 0.5)
    assert response.usage.output_tokens == 20
    assert response.usage.input_tokens == (4 if question == "one two" else 8)
    assert response.usage.total_tokens == response.usage.input_tokens + 20
    assert response == client.responses.retrieve(response.id)


def test_response_at_its_token_limit_is_incomplete(client: OpenAI):
    response = client.responses.create(model="default", input="hello", max_output_tokens=5)

    assert_valid_model(response)
    assert (response.status, response.output_text) == ("incomplete", "w0 w1 w2 w3 w4 ")
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.max_output_tokens, response.usage.output_tokens) == (5, 5)


def test_streamed_response(client: OpenAI):
    events = list(client.responses.create(model="default", input="hello", stream=True))

    for event in events:
        assert_valid_model(event)
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[2].sangha == {
        "model": "scripted", "endpoint": None, "prompt_tokens": 1, "dropped_messages": 0, "recalled": []
    }  # fmt: skip
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].response == client.responses.retrieve(events[-1].response.id)


def test_background_response(client: OpenAI):
    response = client.responses.create(model="default", input="hello", background=True)

    assert_valid_model(response)
    assert (response.status, response.background) == ("queued", True)
    assert wait_for_end(client, response.id).output_text == TEXT


def test_stream_resumes_after_any_sequence_number(client: OpenAI):
    events = list(client.responses.create(model="default", input="hello", stream=True, background=True))
    response_id = events[0].response.id

    for after in (0, 5, *(event.sequence_number for event in events[-2:])):
        rest = list(client.responses.retrieve(response_id, stream=True, starting_after=after))
        assert rest == [event for event in events if event.sequence_number > after]
    with client.responses.stream(response_id=response_id, starting_after=3) as stream:
        assert stream.get_final_response().output_text == TEXT


def test_streaming_helper(client: OpenAI):
    with client.responses.stream(model="default", input="hello") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert "".join(deltas) == final.output_text == TEXT


def test_input_items(client: OpenAI):
    response = client.responses.create(model="default", input=ITEMS)

    items = list(client.responses.input_items.list(response.id, order="asc", limit=3))

    assert [item.role for item in items] == ["developer", "user", "assistant", "user"]
    assert list(client.responses.input_items.list(response.id)) == items[::-1]
    page = client.responses.input_items.with_raw_response.list(response.id, limit=3).http_response.json()
    assert assert_valid(ResponseItemList, page).has_more
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.input_items.list(response.id, after=new_id("msg"))
    assert unknown.value.param == "after"


def test_input_tokens_are_those_of_the_turn(client: OpenAI, scripted_installation: Installation):
    request = {"model": "default", "input": ITEMS, "instructions": "Be kind.", "tools": [ADD]}
    first = client.responses.create(model="default", input="hello")

    counted = client.responses.input_tokens.count(**request)
    chained = client.responses.input_tokens.count(input="more", previous_response_id=first.id)

    assert_valid_model(counted)
    assert isinstance(counted, InputTokenCountResponse)
    assert counted.input_tokens == client.responses.create(**request).usage.input_tokens
    assert chained.input_tokens == 1 + 20 + 1
    assert not scripted_installation.rows("SELECT FROM jobs WHERE kind = 'tokens.count'"), (
        "the job is deleted once its result is read"
    )
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(input="hello", conversation=new_id("conv"))


def test_all_events_come_to_a_client_that_asks_for_them(client: OpenAI):
    events = list(
        client.responses.create(model="default", input="hello", stream=True, extra_headers={"X-Sangha-Events": "all"})
    )

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[3].type == "sangha:engine.started"


def test_a_cancelled_stream_ends_as_incomplete_with_the_status_cancelled(client: OpenAI):
    events = []
    for event in client.responses.create(model="default", input="slowly", stream=True):
        assert_valid_model(event)
        events.append(event)
        if event.type == "response.output_text.delta" and len(events) > 5:
            client.responses.cancel(events[0].response.id)

    assert events[-1].type == "response.incomplete"
    assert events[-1].response.status == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
def test_unstored_response_is_deleted_once_it_is_read(client: OpenAI, stream: bool):
    answer = client.responses.create(model="default", input="hello", store=False, stream=stream)
    response = list(answer)[-1].response if stream else answer

    assert_valid_model(response)
    assert (response.output_text, response.store) == (TEXT, False)
    wait_until(lambda: is_deleted(client, response.id))
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="default", input="hello", previous_response_id=response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="default", input="hello", store=False, background=True)


def is_deleted(client: OpenAI, response_id: str) -> bool:
    try:
        client.responses.retrieve(response_id)
    except openai.NotFoundError:
        return True
    return False


def test_cancelled_response_keeps_its_partial_output(client: OpenAI):
    text = ""
    with client.responses.create(model="default", input="slowly", stream=True) as stream:
        for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                text += event.delta
                if text == "w0 w1 w2 w3 w4 ":
                    assert client.responses.cancel(response_id).status == "cancelled"

    stored = wait_for_end(client, response_id)
    assert_valid_model(stored)
    assert (stored.status, stored.output_text) == ("cancelled", "w0 w1 w2 w3 w4 ") == ("cancelled", text)
    assert stored.usage.output_tokens == 5


def test_deleted_response_is_not_found(client: OpenAI):
    response = client.responses.create(model="default", input="hello")

    assert client.responses.delete(response.id) is None

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id, stream=True)


def test_response_in_progress_cannot_be_deleted(client: OpenAI):
    response = client.responses.create(model="default", input="slowly", background=True)
    start = time.monotonic()

    with pytest.raises(openai.ConflictError):
        client.responses.delete(response.id)

    assert time.monotonic() - start < 2, "the client does not retry a permanent conflict"
    client.responses.cancel(response.id)


def test_models(client: OpenAI):
    wait_until(lambda: {model.to_dict()["status"] for model in client.models.list()} == {"available"}, 20)
    models = list(client.models.list())

    assert {"default", "scripted"} <= {model.id for model in models}
    for model in models:
        assert_valid_model(model)
        alone = client.models.retrieve(model.id).to_dict()
        alone.pop("sangha", None)  # how busy it is
        assert alone == model.to_dict()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_errors_raise_the_clients_exceptions(client: OpenAI):
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nonsense").responses.create(model="default", input="hello")
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.retrieve(new_id("resp"))
    with pytest.raises(openai.BadRequestError) as wrong:
        client.responses.create(model="default", input="hello", temperature=3)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="gpt-4o", input="hello")
    with pytest.raises(openai.BadRequestError) as stale:
        client.responses.create(model="default", input="hello", previous_response_id=new_id("resp"))

    assert missing.value.code == "not_found"
    assert wrong.value.param == "temperature"
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    for unsupported_parameters, param in (
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search_preview"}}, "tool_choice.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0].type"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as unsupported:
            client.responses.create(**{"model": "default", "input": "hello", **unsupported_parameters})
        assert unsupported.value.param == param
    assert (stale.value.param, stale.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.timeout(180)
def test_bundled_model_continues_where_its_worker_was_killed(stack: Installation, user: AccountOwner):
    """At temperature 0 the text is the same with and without an interruption.

    The question has a plain answer: logits of a prefix that is evaluated at once differ in the last bits from those of
    one that was generated token by token, so between two nearly equal tokens the choice may differ.
    """
    question, max_tokens = "List the days of the week and the months of the year.", 40
    engine = load_llamacpp(Settings(slots=1, context=1024))
    uninterrupted = "".join(
        piece.text
        for piece in engine.generate(
            [EngineMessage("user", question)],
            prefix="",
            sampling=Sampling(max_tokens, temperature=0),
            cancelled=lambda: False,
        )
        if isinstance(piece, Token)
    )
    engine.close()
    stack.kill_workers()
    runner = stack.start_worker(engine="llamacpp", slots=1, context=1024)

    follower = user.stream(question, temperature=0, max_output_tokens=max_tokens)
    follower.wait_for_events(deltas=3)  # of several tokens each
    runner.kill()
    received = len(follower.events)
    stack.launch_worker(engine="llamacpp", slots=1, context=1024)
    stack.release_jobs(runner)

    follower.end()
    assert len(follower.events) > received
    assert stack.rows("SELECT attempt FROM jobs WHERE id = %s", follower.job_id) == [{"attempt": 2}]
    assert follower.text == uninterrupted
    usage = follower.events[-1].json()["response"]["usage"]
    assert usage["output_tokens"] == max_tokens
    assert [row["output_tokens"] for row in stack.rows(
        "SELECT output_tokens FROM usage_records WHERE job_id = %s", follower.job_id)] == [max_tokens]  # fmt: skip
