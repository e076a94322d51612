"""Given somebody who says a thing, when they come back, then it is known; and once it is deleted, nowhere."""

from typing import Any

from pipelines.chat.memory_prompt import memory_message
from tests.journeys.following import Follower, wait_until
from tests.journeys.stack import ON_REDIS, Person, Stack, Supervisor

RECALLED, STARTED = "sangha:memory.recalled", "sangha:engine.started"

SAID, QUESTION = "I am allergic to peanuts, by the way.", "Which food am I allergic to?"


def memories(person: Person) -> list[dict[str, Any]]:
    """All that is remembered."""
    return list(person.get("/v1/memories?limit=100&include_closed=true")["data"])


def recalled(turn: Follower) -> list[dict[str, Any]]:
    """What the stream names."""
    return [memory for event in turn.events if event.type == RECALLED for memory in event.data["memories"]]


def prompt_tokens(turn: Follower) -> int:
    """The prompt's length, which the scripted engine counts in words."""
    return next(event.data["prompt_tokens"] for event in turn.events if event.type == STARTED)


@ON_REDIS
def test_what_is_said_on_monday_is_known_on_tuesday_and_once_deleted_on_wednesday_nowhere(stack: Stack, person: Person):
    stack.worker("tokens=5,rate=0")
    stack.worker("", "memory", "recall")

    monday = person.stream(SAID).end()
    assert recalled(monday) == []
    wait_until(lambda: [memory["text"] for memory in memories(person)] == ["w0 w1 w2 w3 w4 ", SAID])

    tuesday = person.stream(QUESTION).end()
    (known,) = recalled(tuesday)
    assert (known["text"], known["speaker"]) == (SAID, "user")
    assert tuesday.types.index(RECALLED) < tuesday.types.index(STARTED)
    assert prompt_tokens(tuesday) == len(QUESTION.split()) + len(memory_message([known]).content.split())
    assert person.get(f"/v1/responses/{tuesday.response_id}")["recalled"] == [known]
    assert recalled(person.stream(QUESTION, memory={"recall": False}).end()) == []
    assert recalled(Person(stack).stream(QUESTION).end()) == []

    assert person.request("DELETE", f"/v1/responses/{monday.response_id}").status_code == 200
    wednesday = person.stream(QUESTION).end()

    assert SAID not in str([event.data for event in wednesday.events])
    assert SAID not in str(memories(person))
    found = person.post("/v1/memories/search", {"query": SAID, "include_neighbours": True})
    assert "peanuts" not in str(found)


@ON_REDIS
def test_a_deleted_conversation_is_forgotten(stack: Stack, person: Person):
    stack.worker("tokens=5,rate=0")
    stack.worker("", "memory", "recall")
    conversation = person.post("/v1/conversations", {})["id"]
    person.stream(SAID, conversation=conversation).end()
    wait_until(lambda: memories(person))

    assert person.request("DELETE", f"/v1/conversations/{conversation}").status_code == 200

    wait_until(lambda: memories(person) == [])


@ON_REDIS
def test_turns_are_remembered_once_each_whatever_becomes_of_the_worker(stack: Stack, person: Person):
    stack.worker("tokens=5,rate=0")
    asked = [f"thing number {number}" for number in range(15)]

    with Supervisor(stack):
        worker = stack.worker("", "memory")
        for number, text in enumerate(asked):
            person.stream(text, memory={"recall": False}).end()
            if number % 6 == 3:
                worker.kill()
        wait_until(lambda: len(memories(person)) >= 2 * len(asked))

    said = [memory["text"] for memory in reversed(memories(person)) if memory["speaker"] == "user"]
    assert said == asked
    (jobs,) = stack.rows("SELECT count(*) AS count FROM jobs WHERE account_id = %s AND kind = 'memory.remember'",
                         person.account)  # fmt: skip
    assert jobs["count"] < len(asked)
