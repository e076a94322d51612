"""Given somebody who says a thing, when they come back, then it is known; and once it is deleted, nowhere."""

from typing import Any

from bench.harness.waiting import wait_until
from pipelines.chat.memory_prompt import memory_message
from tests.journeys.stack import ON_REDIS, Installation, Supervisor, User
from tests.journeys.stream_follower import StreamFollower

RECALLED, STARTED = "sangha:memory.recalled", "sangha:engine.started"

SAID, QUESTION = "I am allergic to peanuts, by the way.", "Which food am I allergic to?"


def memories(user: User) -> list[dict[str, Any]]:
    """All that is remembered."""
    return list(user.get("/v1/memories?limit=100&include_closed=true")["data"])


def recalled(turn: StreamFollower) -> list[dict[str, Any]]:
    """What the stream names."""
    return [memory for event in turn.events if event.type == RECALLED for memory in event.json()["memories"]]


def prompt_tokens(turn: StreamFollower) -> int:
    """The prompt's length, which the scripted engine counts in words."""
    return next(event.json()["prompt_tokens"] for event in turn.events if event.type == STARTED)


@ON_REDIS
def test_a_statement_is_recalled_in_later_turns_until_it_is_deleted(stack: Installation, user: User):
    stack.start_worker("tokens=5,rate=0")
    stack.start_worker("", "memory", "recall")

    monday = user.stream(SAID).end()
    assert recalled(monday) == []
    wait_until(lambda: [memory["text"] for memory in memories(user)] == ["w0 w1 w2 w3 w4 ", SAID])

    tuesday = user.stream(QUESTION).end()
    (known,) = recalled(tuesday)
    assert (known["text"], known["speaker"]) == (SAID, "user")
    assert tuesday.types.index(RECALLED) < tuesday.types.index(STARTED)
    assert prompt_tokens(tuesday) == len(QUESTION.split()) + len(memory_message([known]).content.split())
    assert user.get(f"/v1/responses/{tuesday.response_id}")["recalled"] == [known]
    assert recalled(user.stream(QUESTION, memory={"recall": False}).end()) == []
    assert recalled(User(stack).stream(QUESTION).end()) == []

    assert user.request("DELETE", f"/v1/responses/{monday.response_id}").status_code == 200
    wednesday = user.stream(QUESTION).end()

    assert SAID not in str([event.json() for event in wednesday.events])
    assert SAID not in str(memories(user))
    found = user.post("/v1/memories/search", {"query": SAID, "include_neighbours": True})
    assert "peanuts" not in str(found)


@ON_REDIS
def test_a_deleted_conversation_is_forgotten(stack: Installation, user: User):
    stack.start_worker("tokens=5,rate=0")
    stack.start_worker("", "memory", "recall")
    conversation = user.post("/v1/conversations", {})["id"]
    user.stream(SAID, conversation=conversation).end()
    wait_until(lambda: memories(user))

    assert user.request("DELETE", f"/v1/conversations/{conversation}").status_code == 200

    wait_until(lambda: memories(user) == [])


@ON_REDIS
def test_turns_are_remembered_once_each_whatever_becomes_of_the_worker(stack: Installation, user: User):
    stack.start_worker("tokens=5,rate=0")
    asked = [f"thing number {number}" for number in range(15)]

    with Supervisor(stack):
        worker = stack.start_worker("", "memory")
        for number, text in enumerate(asked):
            user.stream(text, memory={"recall": False}).end()
            if number % 6 == 3:
                worker.kill()
        wait_until(lambda: len(memories(user)) >= 2 * len(asked))

    said = [memory["text"] for memory in reversed(memories(user)) if memory["speaker"] == "user"]
    assert said == asked
    (jobs,) = stack.rows("SELECT count(*) AS count FROM jobs WHERE account_id = %s AND kind = 'memory.remember'",
                         user.account)  # fmt: skip
    assert jobs["count"] < len(asked)
