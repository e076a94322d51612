"""Given the unmodified official client, when it is pointed here, then all that it asks for works."""

import time
from collections.abc import Iterator

import openai
import orjson
import pytest
from openai import OpenAI
from openai.types import Model
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList, Message
from openai.types.responses import Response, ResponseItemList
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import BaseModel

from bench.harness.waiting import wait_until
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.inference.engine import Message as Asked
from pipelines.inference.engine import Sampling, Token
from pipelines.inference.llamacpp.engine import load_llamacpp
from tests.journeys.stack import ON_REDIS, Installation, User
from tests.journeys.strict import strictly, strictly_as

pytestmark = ON_REDIS

TEXT = "".join(f"w{index} " for index in range(20))
ITEMS = [
    {"role": "developer", "content": "Answer briefly."},
    {"role": "user", "content": [{"type": "input_text", "text": "one two"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
    {"type": "message", "role": "user", "content": "four"},
]


ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Sum(BaseModel):
    """What an answer is to look like."""

    total: int
    steps: list[str]


@pytest.fixture(scope="module")
def answering(installation: Installation) -> Installation:
    """An installation that answers at once, but for those who say "slowly": they wait at the fifth token."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("tokens=20,rate=0,hang_at=5,trigger=slowly")
    return installation


@pytest.fixture
def client(answering: Installation) -> Iterator[OpenAI]:
    """The official client of somebody with a new account."""
    with connected(answering, User(answering)) as client:
        yield client


def connected(stack: Installation, user: User) -> OpenAI:
    return OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=user.token, timeout=60)


def ended(client: OpenAI, response_id: str) -> Response:
    """A response once it has ended."""
    found: list[Response] = []

    def is_over() -> bool:
        found.append(client.responses.retrieve(response_id))
        return found[-1].status not in ("queued", "in_progress")

    wait_until(is_over)
    return found[-1]


@pytest.mark.parametrize("question", ["one two", ITEMS])
def test_a_plain_answer(client: OpenAI, question):
    response = client.responses.create(
        model="default", input=question, instructions="Be kind.", metadata={"topic": "words"}, temperature=0, top_p=0.5
    )

    strictly(response)
    assert (response.status, response.output_text, response.metadata) == ("completed", TEXT, {"topic": "words"})
    assert (response.instructions, response.temperature, response.top_p) == ("Be kind.", 0, 0.5)
    assert response.usage.output_tokens == 20
    assert response.usage.input_tokens == (4 if question == "one two" else 8)
    assert response.usage.total_tokens == response.usage.input_tokens + 20
    assert response == client.responses.retrieve(response.id)


def test_an_answer_that_is_cut_is_incomplete(client: OpenAI):
    response = client.responses.create(model="default", input="hello", max_output_tokens=5)

    strictly(response)
    assert (response.status, response.output_text) == ("incomplete", "w0 w1 w2 w3 w4 ")
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.max_output_tokens, response.usage.output_tokens) == (5, 5)


def test_a_streamed_answer(client: OpenAI):
    events = list(client.responses.create(model="default", input="hello", stream=True))

    for event in events:
        if not event.type.startswith("sangha:"):
            strictly(event)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "sangha:engine.started",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].response == client.responses.retrieve(events[-1].response.id)


def test_an_answer_in_the_background(client: OpenAI):
    response = client.responses.create(model="default", input="hello", background=True)

    strictly(response)
    assert (response.status, response.background) == ("queued", True)
    assert ended(client, response.id).output_text == TEXT


def test_a_stream_is_taken_up_anywhere(client: OpenAI):
    whole = list(client.responses.create(model="default", input="hello", stream=True, background=True))
    response_id = whole[0].response.id

    for after in (0, 5, len(whole) - 2, len(whole) - 1):
        rest = list(client.responses.retrieve(response_id, stream=True, starting_after=after))
        assert rest == whole[after + 1 :]
    with client.responses.stream(response_id=response_id, starting_after=3) as stream:
        assert stream.get_final_response().output_text == TEXT


def test_the_streaming_helper(client: OpenAI):
    with client.responses.stream(model="default", input="hello") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert "".join(deltas) == final.output_text == TEXT


def test_a_conversation(client: OpenAI):
    conversation = client.conversations.create(metadata={"about": "words"}, items=ITEMS[:2])
    first = client.responses.create(model="default", input="three", conversation=conversation.id)
    second = client.responses.create(model="default", input="four", conversation={"id": conversation.id})

    strictly(conversation)
    assert client.conversations.retrieve(conversation.id) == conversation
    assert isinstance(conversation, Conversation)
    assert first.conversation.id == conversation.id
    assert (first.usage.input_tokens, second.usage.input_tokens) == (2 + 2 + 1, 2 + 2 + 1 + 20 + 1)
    newest = client.conversations.items.list(conversation.id, limit=3)
    items = list(newest)
    for item in items:
        assert isinstance(item, Message)
        strictly(item)
    assert len(newest.data) == 3
    assert [item.role for item in reversed(items)] == ["developer", *["user", "user", "assistant"], "user", "assistant"]
    assert items == list(reversed(list(client.conversations.items.list(conversation.id, order="asc"))))
    gone = client.conversations.delete(conversation.id)
    assert isinstance(gone, ConversationDeletedResource)
    assert gone.deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    assert client.responses.retrieve(second.id).output_text == TEXT


def test_a_chain(client: OpenAI):
    first = client.responses.create(model="default", input="one")
    second = client.responses.create(model="default", input="two", previous_response_id=first.id)
    third = client.responses.create(model="default", input="three", previous_response_id=second.id)

    assert third.previous_response_id == second.id
    assert [turn.usage.input_tokens for turn in (first, second, third)] == [1, 1 + 20 + 1, 1 + 20 + 1 + 20 + 1]


def test_input_items(client: OpenAI):
    response = client.responses.create(model="default", input=ITEMS)

    items = list(client.responses.input_items.list(response.id, order="asc", limit=3))

    assert [item.role for item in items] == ["developer", "user", "assistant", "user"]
    assert list(client.responses.input_items.list(response.id)) == items[::-1]
    page = client.responses.input_items.with_raw_response.list(response.id, limit=3).http_response.json()
    assert strictly_as(ResponseItemList, page).has_more
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.input_items.list(response.id, after=new_id("msg"))
    assert unknown.value.param == "after"


def test_tokens_are_counted_as_a_turn_counts_them(client: OpenAI, answering: Installation):
    asked = {"model": "default", "input": ITEMS, "instructions": "Be kind.", "tools": [ADD]}
    first = client.responses.create(model="default", input="hello")

    counted = client.responses.input_tokens.count(**asked)
    behind = client.responses.input_tokens.count(input="more", previous_response_id=first.id)

    strictly(counted)
    assert isinstance(counted, InputTokenCountResponse)
    assert counted.input_tokens == client.responses.create(**asked).usage.input_tokens
    assert behind.input_tokens == 1 + 20 + 1
    assert not answering.rows("SELECT FROM jobs WHERE kind = 'tokens.count'"), "what was counted is forgotten"
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(input="hello", conversation=new_id("conv"))


def test_a_function_is_called_and_answered(client: OpenAI):
    said = [{"role": "user", "content": "add one and two"}]

    asking = client.responses.create(model="default", input=said, tools=[ADD], tool_choice="required")
    (call,) = asking.output
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "three"}
    answer = client.responses.create(model="default", input=[*said, *asking.output, told], tools=[ADD])
    chained = client.responses.create(model="default", input=[told], tools=[ADD], previous_response_id=asking.id)

    for response in (asking, answer, chained):
        strictly(response)
    assert (call.type, call.name, call.status) == ("function_call", "add", "completed")
    assert (asking.tool_choice, asking.tools[0].name) == ("required", "add")
    assert answer.output_text == chained.output_text == TEXT
    assert answer.usage.input_tokens == chained.usage.input_tokens
    brought = client.responses.input_items.with_raw_response.list(answer.id, order="asc").http_response.json()
    assert [item.type for item in strictly_as(ResponseItemList, brought).data] == [
        "message", "function_call", "function_call_output"]  # fmt: skip


def test_a_call_is_streamed(client: OpenAI):
    events = list(
        client.responses.create(model="default", input="hello", tools=[ADD], tool_choice="required", stream=True)
    )

    for event in events:
        if not event.type.startswith("sangha:"):
            strictly(event)
    arguments = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    (call,) = events[-1].response.output
    assert arguments == done.arguments == call.arguments
    assert (done.item_id, done.output_index) == (call.id, 0)


def test_an_answer_in_the_form_of_a_type(client: OpenAI):
    response = client.responses.parse(model="default", input="hello", text_format=Sum)

    assert isinstance(response.output_parsed, Sum)
    assert response.text.format.type == "json_schema"
    strictly(client.responses.retrieve(response.id))
    anything = client.responses.create(model="default", input="hello", text={"format": {"type": "json_object"}})
    strictly(anything)
    assert isinstance(orjson.loads(anything.output_text), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_not_stored_is_gone_once_it_was_read(client: OpenAI, stream: bool):
    answer = client.responses.create(model="default", input="hello", store=False, stream=stream)
    response = list(answer)[-1].response if stream else answer

    strictly(response)
    assert (response.output_text, response.store) == (TEXT, False)
    wait_until(lambda: is_gone(client, response.id))
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="default", input="hello", previous_response_id=response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="default", input="hello", store=False, background=True)


def is_gone(client: OpenAI, response_id: str) -> bool:
    try:
        client.responses.retrieve(response_id)
    except openai.NotFoundError:
        return True
    return False


def test_the_items_of_a_conversation(client: OpenAI):
    conversation = client.conversations.create()
    given = [
        *ITEMS[:2],
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "three"},
    ]

    added = client.conversations.items.create(conversation.id, items=given)

    strictly(added)
    assert isinstance(added, ConversationItemList)
    for item in added.data:
        read = client.conversations.items.retrieve(item.id, conversation_id=conversation.id)
        strictly(read)
        assert read == item
    page = client.conversations.items.with_raw_response.list(conversation.id, limit=2).http_response.json()
    strictly_as(ConversationItemList, page)
    changed = client.conversations.update(conversation.id, metadata={"topic": "sums"})
    strictly(changed)
    assert changed.metadata == {"topic": "sums"}
    rest = client.conversations.items.delete(added.last_id, conversation_id=conversation.id)
    strictly(rest)
    assert rest == changed
    assert len(list(client.conversations.items.list(conversation.id, limit=2))) == 3
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(added.last_id, conversation_id=conversation.id)
    with pytest.raises(openai.BadRequestError) as unknown:
        client.conversations.items.list(conversation.id, after=added.last_id)
    assert unknown.value.param == "after"


def test_a_turn_that_would_not_wait_is_refused_and_one_that_interrupts_keeps_what_was_said(client: OpenAI):
    conversation = client.conversations.create().id
    place = {"model": "default", "conversation": conversation}
    with client.responses.create(**place, input="slowly", stream=True) as running:
        said = ""
        for event in running:
            said += event.delta if event.type == "response.output_text.delta" else ""
            if said.endswith("w4 "):
                break
        waiting = client.responses.create(**place, input="two", background=True)
        began = time.monotonic()
        with pytest.raises(openai.ConflictError) as busy:
            client.responses.create(**place, input="three", extra_body={"if_busy": "reject"})
        assert time.monotonic() - began < 2, "a permanent conflict is not tried again"
        assert (busy.value.code, busy.value.param) == ("conversation_busy", "if_busy")

        answer = client.responses.create(**place, input="four", extra_body={"if_busy": "interrupt"})

    assert answer.output_text == TEXT
    assert client.responses.retrieve(waiting.id).status == "cancelled"
    items = list(client.conversations.items.list(conversation, order="asc"))
    assert [item.content[0].text for item in items] == ["slowly", "w0 w1 w2 w3 w4 ", "four", TEXT]
    assert items[1].status == "incomplete"
    assert answer.usage.input_tokens == 1 + 5 + 1


def test_a_turn_outlives_its_conversation(client: OpenAI):
    conversation = client.conversations.create().id
    running = client.responses.create(model="default", input="slowly", conversation=conversation, background=True)

    client.conversations.delete(conversation)
    client.responses.cancel(running.id)

    left = ended(client, running.id)
    strictly(left)
    assert (left.status, left.conversation) == ("cancelled", None)


def test_a_cancelled_answer_keeps_what_was_said(client: OpenAI):
    said = ""
    with client.responses.create(model="default", input="slowly", stream=True) as stream:
        for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                said += event.delta
                if said == "w0 w1 w2 w3 w4 ":
                    assert client.responses.cancel(response_id).status == "cancelled"

    stored = ended(client, response_id)
    strictly(stored)
    assert (stored.status, stored.output_text) == ("cancelled", "w0 w1 w2 w3 w4 ") == ("cancelled", said)
    assert stored.usage.output_tokens == 5


def test_a_deleted_answer_is_gone(client: OpenAI):
    response = client.responses.create(model="default", input="hello")

    assert client.responses.delete(response.id) is None

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id, stream=True)


def test_an_answer_in_progress_is_not_deleted(client: OpenAI):
    response = client.responses.create(model="default", input="slowly", background=True)
    began = time.monotonic()

    with pytest.raises(openai.ConflictError):
        client.responses.delete(response.id)

    assert time.monotonic() - began < 2, "a permanent conflict is not tried again"
    client.responses.cancel(response.id)


def test_models(client: OpenAI):
    models = list(client.models.list())

    assert {"default", "scripted"} <= {model.id for model in models}
    for model in models:
        strictly(model)
        assert client.models.retrieve(model.id) == Model.model_validate(model.to_dict())
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_errors_are_the_clients_own(client: OpenAI):
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nonsense").responses.create(model="default", input="hello")
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.retrieve(new_id("resp"))
    with pytest.raises(openai.BadRequestError) as wrong:
        client.responses.create(model="default", input="hello", temperature=3)
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.create(model="gpt-4o", input="hello")
    with pytest.raises(openai.BadRequestError) as stale:
        client.responses.create(model="default", input="hello", previous_response_id=new_id("resp"))

    assert missing.value.code == "not_found"
    assert wrong.value.param == "temperature"
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    for asked, param in (
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0].type"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as unsupported:
            client.responses.create(**{"model": "default", "input": "hello", **asked})
        assert unsupported.value.param == param
    assert (stale.value.param, stale.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.timeout(180)
def test_a_real_model_goes_on_where_its_worker_was_killed(stack: Installation, user: User):
    """SmolLM2 at temperature 0 says the same, whether it was interrupted or not.

    Of a question with a plain answer, that is: a prefix read at once differs in the last bits from one that was
    generated token by token, so where two words are as good as equal, the other one may come.
    """
    question, longest = "List the days of the week and the months of the year.", 40
    engine = load_llamacpp(Settings(slots=1, context=1024))
    uninterrupted = "".join(
        piece.text
        for piece in engine.generate(
            [Asked("user", question)], prefix="", sampling=Sampling(longest, temperature=0), cancelled=lambda: False
        )
        if isinstance(piece, Token)
    )
    engine.close()
    stack.kill_workers()
    runner = stack.start_worker(engine="llamacpp", slots=1, context=1024)

    follower = user.stream(question, temperature=0, max_output_tokens=longest)
    follower.wait_for_events(deltas=3)  # of some tokens each
    runner.kill()
    heard = len(follower.events)
    stack.launch_worker(engine="llamacpp", slots=1, context=1024)
    stack.release_jobs(runner)

    follower.end()
    assert len(follower.events) > heard
    assert stack.rows("SELECT attempt FROM jobs WHERE id = %s", follower.job_id) == [{"attempt": 2}]
    assert follower.text == uninterrupted
    usage = follower.events[-1].json()["response"]["usage"]
    assert usage["output_tokens"] == longest
    assert [row["output_tokens"] for row in stack.rows(
        "SELECT output_tokens FROM usage_records WHERE job_id = %s", follower.job_id)] == [longest]  # fmt: skip
