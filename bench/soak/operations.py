"""The kinds of operations, their shares, and the check of each one's answer, which raises CheckFailed."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.harness.client import PASSWORD
from bench.harness.sse import CheckFailed, ReceivedEvent, check_stream, is_delta, scripted_text, text_of
from bench.harness.stack import WITHOUT_MEMORY
from bench.harness.waiting import wait_until
from bench.soak.accounts import READ_TIMEOUT, SoakAccount, SoakAccounts, SoakClient
from models.platform.ids import new_id

#: The engine's answer and its rate: slow enough to disconnect and cancel in the middle.
TOKENS = 20
SCRIPT = f"tokens={TOKENS},rate=150"

#: Seconds between two polls of background work.
POLL_INTERVAL = 0.1

THINGS = ("river", "dog", "garden", "piano", "train", "coffee", "winter", "bicycle", "sister", "harbour")
VERBS = ("bought", "lost", "painted", "remembered", "feared", "praised", "repaired", "dreamt of")

#: The final statuses of a response, and the final states of a job.
FINAL_STATUSES = ("completed", "failed", "cancelled", "incomplete")
FINAL_STATES = ("completed", "failed", "cancelled", "dead")


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation uses: its account, connections, and a source of random choices."""

    accounts: SoakAccounts
    account: SoakAccount
    chance: random.Random

    def sentence(self) -> str:
        """A sentence that seldom repeats."""
        thing, verb, number = self.chance.choice(THINGS), self.chance.choice(VERBS), self.chance.randrange(10_000)
        return f"I {verb} the {thing} number {number} on day {self.chance.randrange(365)}."


#: Seconds of a streamed turn to its first token and to its last event; None for other operations.
Times = tuple[float, float] | None
Operation = Callable[[Context], Times]


def turn(context: Context) -> Times:
    """Stream a turn with recall, which is remembered."""
    return _stream(context, {})


def turn_without_memory(context: Context) -> Times:
    """Stream a turn without memory."""
    return _stream(context, WITHOUT_MEMORY)


def conversation(context: Context) -> Times:
    """Stream three turns of a conversation, and delete one conversation in three."""
    with context.accounts.connection(context.account) as connection:
        conversation_id = connection.post("/v1/conversations", {})["id"]
        for _ in range(3):
            check_stream(list(connection.stream(context.sentence(), conversation=conversation_id)), TOKENS)
        items = connection.get(f"/v1/conversations/{conversation_id}/items")["data"]
        _expect(len(items) == 6, f"a conversation of three turns has {len(items)} items")
        if context.chance.random() < 1 / 3:
            connection.delete(f"/v1/conversations/{conversation_id}")
    return None


def background_turn(context: Context) -> Times:
    """Poll a background turn."""
    with context.accounts.connection(context.account) as connection:
        created = connection.post("/v1/responses", {"input": context.sentence(), "background": True})
        response = _poll(connection, f"/v1/responses/{created['id']}", "status", FINAL_STATUSES)
        _expect(response["status"] == "completed", f"a background turn has the status {response['status']}")
        text = "".join(part["text"] for item in response["output"] for part in item["content"])
        _expect(text == scripted_text(TOKENS), f"a background turn has the text {text!r}")
    return None


def reconnect(context: Context) -> Times:
    """Disconnect from a stream after some events, and resume it after the last one."""
    events, count = [], context.chance.randint(1, 12)
    connection = SoakClient(context.accounts.address)
    with context.accounts.connection(context.account) as other:
        connection.use_token(context.account.token(other))
        for event in connection.stream(context.sentence()):
            events.append(event)
            if len(events) == count:
                break
        connection.close()
        path = f"/v1/responses/{response_id(events)}?stream=true&starting_after={events[-1].sequence}"
        if not events[-1].is_last:
            events += other.follow(path)
    check_stream(events, TOKENS)
    return None


def cancel(context: Context) -> Times:
    """Cancel a streaming turn, which may complete before."""
    events: list[ReceivedEvent] = []
    with (
        context.accounts.connection(context.account) as connection,
        context.accounts.connection(context.account) as other,
    ):
        for event in connection.stream(context.sentence()):
            events.append(event)
            if len(events) == 6:
                other.post(f"/v1/responses/{response_id(events)}/cancel", {})
    _expect([event.sequence for event in events] == list(range(len(events))), "a cancelled stream has gaps")
    text = text_of(events)
    _expect(scripted_text(TOKENS).startswith(text), f"a cancelled turn has the text {text!r}")
    ended = events[-1].type in ("response.completed", "sangha:job.cancelled")
    _expect(ended, f"a cancelled stream ended with {events[-1].type}")
    return None


def chat_completion(context: Context) -> Times:
    """Create a chat completion, which is not stored."""
    with context.accounts.connection(context.account) as connection:
        messages = [{"role": "user", "content": context.sentence()}]
        completion = connection.post("/v1/chat/completions", {"model": "default", "messages": messages})
    text = completion["choices"][0]["message"]["content"]
    _expect(text == scripted_text(TOKENS), f"a completion has the text {text!r}")
    return None


def delete_turn(context: Context) -> Times:
    """Stream a turn, and delete it."""
    with context.accounts.connection(context.account) as connection:
        events = list(connection.stream(context.sentence()))
        check_stream(events, TOKENS)
        connection.delete(f"/v1/responses/{response_id(events)}")
    return None


def create_memories(context: Context) -> Times:
    """Create five memories, find the last one by its text, and delete the first."""
    with context.accounts.connection(context.account) as connection:
        texts = [context.sentence() for _ in range(5)]
        created = connection.post("/v1/memories", {"memories": [{"text": text} for text in texts]})
        if created["object"] == "job":  # the workers were too busy to answer in time
            _wait_for_job(connection, created["id"])
            return None
        hits = connection.post("/v1/memories/search", {"query": texts[-1], "limit": 20})["data"]
        _expect(any(hit["text"] == texts[-1] for hit in hits), "a search for a memory's text did not find it")
        connection.delete(f"/v1/memories/{created['data'][0]['id']}")
    return None


def import_memories(context: Context) -> Times:
    """Import twenty lines."""
    lines = b"\n".join(orjson.dumps({"text": context.sentence(), "speaker": "Ada"}) for _ in range(20))
    with context.accounts.connection(context.account) as connection:
        job = _wait_for_job(connection, connection.post_lines("/v1/memories/import", lines)["id"])
    _expect(job["result"]["imported"] == 20, f"an import of 20 lines has the result {job['result']}")
    return None


def search_memories(context: Context) -> Times:
    """Search memories."""
    with context.accounts.connection(context.account) as connection:
        connection.post("/v1/memories/search", {"query": f"Which {context.chance.choice(THINGS)} did I lose?"})
    return None


def embed(context: Context) -> Times:
    """Embed two texts."""
    with context.accounts.connection(context.account) as connection:
        body = {"model": "default", "input": [context.sentence(), context.sentence()]}
        embeddings = connection.post("/v1/embeddings", body)["data"]
    _expect([len(entry["embedding"]) for entry in embeddings] == [384, 384], "vectors have another size than 384")
    return None


def count_tokens(context: Context) -> Times:
    """Count tokens, and read the jobs and the usage."""
    with context.accounts.connection(context.account) as connection:
        count = connection.post("/v1/responses/input_tokens", {"input": context.sentence()})
        _expect(count["input_tokens"] > 0, "a prompt has no tokens")
        connection.get("/v1/jobs?limit=20")
        connection.get("/v1/account/usage")
    return None


def api_key(context: Context) -> Times:
    """Create, use and revoke an API key."""
    with context.accounts.connection(context.account) as connection:
        created = connection.post("/v1/api_keys", {"name": "soak"})
        connection.use_token(created["key"])
        connection.get("/v1/me")
        connection.use_token(context.account.token(connection))
        connection.delete(f"/v1/api_keys/{created['id']}")
    return None


def session(context: Context) -> Times:
    """Log in, refresh the tokens twice, and log out."""
    with context.accounts.connection() as connection:
        tokens = connection.post("/login", {"email": context.account.email, "password": PASSWORD})
        for _ in range(2):
            tokens = connection.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        connection.use_token(tokens["token"])
        connection.post("/auth/logout", {})
    return None


def repeat_request(context: Context) -> Times:
    """Send a creating request twice under one Idempotency-Key."""
    headers = {"Idempotency-Key": new_id("again")}
    with context.accounts.connection(context.account) as connection:
        first, second = (connection.post("/v1/conversations", {}, headers) for _ in range(2))
    _expect(first["id"] == second["id"], "one Idempotency-Key created two objects")
    return None


def meditate(context: Context) -> Times:
    """Run a meditation to its end."""
    with context.accounts.connection(context.account) as connection:
        created = connection.post("/v1/meditations", {})
        meditation = _poll(connection, f"/v1/meditations/{created['id']}", "status", FINAL_STATUSES)
    _expect(meditation["status"] == "completed", f"a meditation has the status {meditation['status']}: {meditation}")
    return None


def account_lifetime(context: Context) -> Times:
    """Sign up, run a turn, export the account, and delete it."""
    account = SoakAccount(context.accounts.address)
    with context.accounts.connection(account) as connection:
        check_stream(list(connection.stream(context.sentence())), TOKENS)
        _wait_for_job(connection, connection.post("/v1/account/export", {})["id"])
        connection.delete(f"/v1/account?confirm={account.id}")
    return None


#: The share of each kind in per cent.
MIX: Mapping[str, tuple[float, Operation]] = {
    "turn": (34, turn),
    "turn without memory": (8, turn_without_memory),
    "conversation": (6, conversation),
    "background turn": (10, background_turn),
    "reconnect": (10, reconnect),
    "cancel": (6, cancel),
    "chat completion": (6, chat_completion),
    "delete turn": (3, delete_turn),
    "create memories": (3, create_memories),
    "import": (0.5, import_memories),
    "search": (4, search_memories),
    "embed": (3, embed),
    "count tokens": (2, count_tokens),
    "API key": (2, api_key),
    "session": (1, session),
    "repeated request": (1, repeat_request),
    "meditation": (0.2, meditate),
    "account": (0.3, account_lifetime),
}


def response_id(events: Sequence[ReceivedEvent]) -> str:
    """The response of a stream, by its first event."""
    id_: str = events[0].json()["response"]["id"]
    return id_


def _stream(context: Context, options: Mapping[str, Any]) -> Times:
    with context.accounts.connection(context.account) as connection:
        began = time.monotonic()
        events = list(connection.stream(context.sentence(), **options))
    check_stream(events, TOKENS)
    return next(event.at for event in events if is_delta(event)) - began, events[-1].at - began


def _wait_for_job(connection: SoakClient, job_id: str) -> dict[str, Any]:
    job = _poll(connection, f"/v1/jobs/{job_id}", "state", FINAL_STATES)
    _expect(job["state"] == "completed", f"a job {job['kind']} has the state {job['state']}: {job['error']}")
    return job


def _poll(connection: SoakClient, path: str, field: str, final: Sequence[str]) -> dict[str, Any]:
    def ended() -> dict[str, Any]:
        value = connection.get(path)
        return value if value[field] in final else {}

    return wait_until(ended, READ_TIMEOUT, interval=POLL_INTERVAL, what=f"the end of {path}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)
