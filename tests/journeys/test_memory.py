"""A turn is remembered and recalled in later turns, until it is deleted."""

from typing import Any

from openai import OpenAI

from bench.harness.waiting import wait_until
from pipelines.chat.memory_prompt import memory_message
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, WorkerSupervisor
from tests.journeys.stream_follower import StreamFollower

RECALLED, STARTED = "sangha:memory.recalled", "sangha:engine.started"

STATEMENT, QUESTION = "I am allergic to peanuts, by the way.", "Which food am I allergic to?"


def memories(user: AccountOwner) -> list[dict[str, Any]]:
    """Return all memories of the account."""
    return list(user.get("/v1/memories?limit=100&include_closed=true")["data"])


def recalled(turn: StreamFollower) -> list[dict[str, Any]]:
    """Return the memories that the stream names as recalled."""
    return [memory for event in turn.events if event.type == RECALLED for memory in event.json()["memories"]]


def prompt_tokens(turn: StreamFollower) -> int:
    """Return the length of the prompt; the scripted engine counts words."""
    return next(event.json()["prompt_tokens"] for event in turn.events if event.type == STARTED)


@ON_REDIS
def test_a_statement_is_recalled_in_later_turns_until_it_is_deleted(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=5,rate=0")
    stack.start_worker("", "memory", "recall")

    first = user.stream(STATEMENT).end()
    assert recalled(first) == []
    wait_until(lambda: [memory["text"] for memory in memories(user)] == ["w0 w1 w2 w3 w4 ", STATEMENT])

    def ask() -> StreamFollower | None:
        """Ask until a turn recalls: the first recall loads the embedder, which can take longer than its 0.5 s."""
        turn = user.stream(QUESTION, memory={"remember": False}).end()
        return turn if recalled(turn) else None

    second = wait_until(ask, what="a recalled memory")
    (reference,) = recalled(second)
    (memory,) = user.get(f"/v1/responses/{second.response_id}")["recalled"]
    assert memory.items() >= {**reference, "text": STATEMENT, "speaker": "user"}.items()
    assert STATEMENT not in str([event.json() for event in second.events])
    assert second.types.index(RECALLED) < second.types.index(STARTED)
    assert prompt_tokens(second) == len(QUESTION.split()) + len(memory_message([memory]).content.split())
    waited = user.post("/v1/responses", {"input": QUESTION, "memory": {"remember": False}})
    assert [each["text"] for each in waited["recalled"]] == [STATEMENT]
    assert recalled(user.stream(QUESTION, memory={"recall": False}).end()) == []
    assert recalled(AccountOwner(stack).stream(QUESTION).end()) == []

    assert user.request("DELETE", f"/v1/responses/{first.response_id}").status_code == 200
    third = user.stream(QUESTION).end()

    (deleted,) = user.get(f"/v1/responses/{second.response_id}")["recalled"]
    assert deleted == {**reference, "speaker": None, "occurred_at": None, "text": None}
    assert STATEMENT not in str([event.json() for event in third.events])
    assert STATEMENT not in str(memories(user))
    results = user.post("/v1/memories/search", {"query": STATEMENT, "include_neighbours": True})
    assert "peanuts" not in str(results)


@ON_REDIS
def test_memories_of_a_deleted_conversation_are_deleted(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=5,rate=0")
    stack.start_worker("", "memory", "recall")
    conversation = user.post("/v1/conversations", {})["id"]
    user.stream(STATEMENT, conversation=conversation).end()
    wait_until(lambda: memories(user))

    assert user.request("DELETE", f"/v1/conversations/{conversation}").status_code == 200

    wait_until(lambda: memories(user) == [])


@ON_REDIS
def test_turns_are_remembered_once_when_workers_are_killed(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=5,rate=0")
    worker = stack.start_worker("", "memory")  # before the supervisor, which would take it for a dead one
    texts = [f"thing number {number}" for number in range(15)]

    with WorkerSupervisor(stack):
        for number, text in enumerate(texts):
            user.stream(text, memory={"recall": False}).end()
            if number % 6 == 3:
                worker.kill()
        wait_until(lambda: len(memories(user)) >= 2 * len(texts))

    remembered = [memory["text"] for memory in reversed(memories(user)) if memory["speaker"] == "user"]
    assert remembered == texts
    (jobs,) = stack.rows("SELECT count(*) AS count FROM jobs WHERE account_id = %s AND kind = 'memory.remember'",
                         user.account)  # fmt: skip
    assert jobs["count"] < len(texts)


def client_of(stack: Installation, user: AccountOwner) -> OpenAI:
    """Return OpenAI's client with a key of the user's application."""
    created = user.request("POST", "/v1/api_keys", json={"name": "app", "scopes": ["inference", "read"]})
    key = str(created.json()["key"])
    return OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=key, timeout=60, max_retries=0)


@ON_REDIS
def test_two_people_behind_one_key_have_memories_of_their_own(stack: Installation, user: AccountOwner):
    # Given an application that serves several people through OpenAI's client
    stack.start_worker("tokens=5,rate=0")
    stack.start_worker("", "memory", "recall")
    with client_of(stack, user) as client:
        # When one of them states a fact
        client.responses.create(model="default", input=STATEMENT, user="alice")
        client.responses.create(model="default", input="I like the sea.", safety_identifier="bob")
        for name in ("alice", "bob"):
            wait_until(lambda name=name: user.get(f"/v1/memories?space={name}")["data"], what="a memory")

        def ask(name: str) -> list[str]:
            response = client.responses.create(
                model="default", input=QUESTION, user=name, extra_body={"memory": {"remember": False}}
            )
            return [memory["text"] for memory in user.get(f"/v1/responses/{response.id}")["recalled"]]

        # Then only that person's turns recall it
        wait_until(lambda: ask("alice") == [STATEMENT], what="a recalled memory")
        assert ask("bob") == ask("carol") == []
        completion = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": QUESTION}], user="bob", store=True
        )
        assert completion.choices[0].message.content
        assert client.responses.create(model="default", input=QUESTION).model_dump()["recalled"] == []
        # And the user's own memory is empty
        assert memories(user) == []
