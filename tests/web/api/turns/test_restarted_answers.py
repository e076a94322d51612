"""Streams of long answers that were restarted: a new reader gets the last answer only, from Redis and the archive."""

import orjson
import pytest

from models.jobs.attempts import release
from models.journal.pages import PAGE_BYTES
from tests.web.scripted_job import ScriptedJob

FIRST = [f"first answer {index} " for index in range(4000)]
SECOND = [f"second answer {index} " for index in range(1000)]


@pytest.fixture
def response_id(user):
    """The id of a response whose job is queued."""
    return user.create_response()["id"]


@pytest.fixture
def scripted(user, database, redis_client, response_id):
    """The job of the response, whose first attempt has written the beginning of an answer."""
    (job,) = user.jobs()
    scripted = ScriptedJob.of_response(database, redis_client, user.caller.account_id, job["id"])
    scripted.append("response.in_progress", response={"id": response_id, "status": "in_progress"})
    scripted.append("response.output_item.added", output_index=0, item={"id": "msg_1", "type": "message"})
    return scripted


def restart(scripted):
    """Begin the second attempt, which cannot continue the answer."""
    with scripted.database.transaction() as connection:
        release(connection, scripted.job, scripted.events[scripted.archived :])
    scripted.archived = len(scripted.events)
    scripted.claim_again()
    scripted.append("sangha:answer.restarted", item_id="msg_1", discarded_tokens=len(FIRST))


def read(user, response_id, query=""):
    answer = user.request("GET", f"/v1/responses/{response_id}?stream=true{query}")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [orjson.loads(line) for line in lines]


@pytest.mark.parametrize("source", ["Redis", "archive"])
def test_a_new_reader_of_a_long_history_begins_with_the_restarted_answer(user, scripted, response_id, source):
    # Given an answer that was restarted beyond the first page of its history
    scripted.append_texts(FIRST)
    assert sum(len(event.data) for event in scripted.events) > PAGE_BYTES
    restart(scripted)
    scripted.append_texts(SECOND)
    scripted.end()
    if source == "archive":
        scripted.forget_journal()

    # When a client reads it
    events = read(user, response_id)

    # Then it gets the second answer, with all events that belong to it
    assert "".join(event["delta"] for event in events if "delta" in event) == "".join(SECOND)
    types = [event["type"] for event in events if "delta" not in event]
    assert types == ["response.created", "response.queued", "response.in_progress", "response.output_item.added",
                     "response.completed"]  # fmt: skip


def test_a_client_that_has_text_of_the_first_answer_gets_an_error(user, scripted, response_id):
    scripted.append_texts(FIRST)
    restart(scripted)
    scripted.append_texts(SECOND)
    scripted.end()

    events = read(user, response_id, "&starting_after=10")

    assert (events[-1]["type"], events[-1]["code"]) == ("error", "answer_restarted")
