"""Given the unmodified official client, when it is pointed here, then all that it asks for works."""

import time
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types import Model
from openai.types.conversations import Conversation, ConversationDeletedResource, Message
from openai.types.responses import Response, ResponseInputMessageItem

from models.ids import new_id
from models.settings import Settings
from pipelines.inference.engine import Message as Asked
from pipelines.inference.engine import Sampling, Token
from pipelines.inference.llamacpp import load
from tests.journeys.following import wait_until
from tests.journeys.stack import ON_REDIS, Person, Stack, bury

pytestmark = ON_REDIS

TEXT = "".join(f"w{index} " for index in range(20))
ITEMS = [
    {"role": "developer", "content": "Answer briefly."},
    {"role": "user", "content": [{"type": "input_text", "text": "one two"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
    {"type": "message", "role": "user", "content": "four"},
]


@pytest.fixture(scope="module")
def answering(installation: Stack) -> Stack:
    """An installation that answers at once, but for those who say "slowly": they wait at the fifth token."""
    installation.web("web-a")
    installation.scheduler()
    installation.worker("tokens=20,rate=0,hang_at=5,trigger=slowly")
    return installation


@pytest.fixture
def client(answering: Stack) -> Iterator[OpenAI]:
    """The official client of somebody with a new account."""
    with connected(answering, Person(answering)) as client:
        yield client


def connected(stack: Stack, person: Person) -> OpenAI:
    return OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=person.token, timeout=60)


def strictly(answer: openai.BaseModel) -> None:
    """What came fits the client's own types; the client itself takes whatever comes."""
    type(answer).model_validate(answer.to_dict(mode="json"))


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
        if not event.type.startswith("sangha."):
            strictly(event)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "sangha.engine.started",
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
    for item in items:
        if item.role != "assistant":
            ResponseInputMessageItem.model_validate(item.to_dict(mode="json"))
    assert list(client.responses.input_items.list(response.id)) == items[::-1]


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
    assert (stale.value.param, stale.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.timeout(180)
def test_a_real_model_goes_on_where_its_worker_was_killed(stack: Stack, person: Person):
    """SmolLM2 at temperature 0 says the same, whether it was interrupted or not.

    Of a question with a plain answer, that is: a prefix read at once differs in the last bits from one that was
    generated token by token, so where two words are as good as equal, the other one may come.
    """
    question, longest = "List the days of the week and the months of the year.", 40
    engine = load(Settings(slots=1, context=1024))
    uninterrupted = "".join(
        piece.text
        for piece in engine.generate(
            [Asked("user", question)], prefix="", sampling=Sampling(longest, temperature=0), cancelled=lambda: False
        )
        if isinstance(piece, Token)
    )
    engine.close()
    stack.end_workers()
    runner = stack.worker(engine="llamacpp", slots=1, context=1024)

    follower = person.stream(question, temperature=0, max_output_tokens=longest)
    follower.wait_for(deltas=8)
    runner.kill()
    heard = len(follower.events)
    stack.begin_worker(engine="llamacpp", slots=1, context=1024)
    bury(stack, runner)

    follower.end()
    assert len(follower.events) > heard
    assert stack.rows("SELECT attempt FROM jobs WHERE id = %s", follower.job_id) == [{"attempt": 2}]
    assert follower.text == uninterrupted
    usage = follower.events[-1].data["response"]["usage"]
    assert usage["output_tokens"] == longest
    assert [row["output_tokens"] for row in stack.rows(
        "SELECT output_tokens FROM usage_records WHERE job_id = %s", follower.job_id)] == [longest]  # fmt: skip
