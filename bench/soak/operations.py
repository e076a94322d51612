"""The kinds of operations, their shares, and the check of each one's answer, which raises CheckFailed."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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

MEBIBYTE = 1_048_576

#: The texts of a batch, whose vectors have more than a mebibyte in the job's row, and more in the response.
BATCH_TEXTS = 530

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
    rng: random.Random

    def client(self) -> AbstractContextManager[SoakClient]:
        """Take a client of the account until the end of the block."""
        return self.accounts.client(self.account)

    def sentence(self) -> str:
        """Return a sentence that seldom repeats."""
        thing, verb, number = self.rng.choice(THINGS), self.rng.choice(VERBS), self.rng.randrange(10_000)
        return f"I {verb} the {thing} number {number} on day {self.rng.randrange(365)}."


#: Seconds of a streamed turn to its first token and to its last event.
Times = tuple[float, float]

#: Performs an operation, and returns the times of a streamed turn.
Operation = Callable[[Context], Times | None]


def turn(context: Context) -> Times:
    """Stream a turn with recall, which is remembered."""
    return _stream(context, {})


def turn_without_memory(context: Context) -> Times:
    """Stream a turn without memory."""
    return _stream(context, WITHOUT_MEMORY)


def conversation(context: Context) -> None:
    """Stream three turns of a conversation, and delete one conversation in three."""
    with context.client() as client:
        conversation_id = client.post("/v1/conversations", {})["id"]
        for _ in range(3):
            check_stream(list(client.stream(context.sentence(), conversation=conversation_id)), TOKENS)
        items = client.get(f"/v1/conversations/{conversation_id}/items")["data"]
        _expect(len(items) == 6, f"a conversation of three turns has {len(items)} items")
        if context.rng.random() < 1 / 3:
            client.delete(f"/v1/conversations/{conversation_id}")


def background_turn(context: Context) -> None:
    """Poll a background turn."""
    with context.client() as client:
        created = client.post("/v1/responses", {"input": context.sentence(), "background": True})
        response = _poll(client, f"/v1/responses/{created['id']}", "status", FINAL_STATUSES)
        _expect(response["status"] == "completed", f"a background turn has the status {response['status']}")
        text = "".join(part["text"] for item in response["output"] for part in item["content"])
        _expect(text == scripted_text(TOKENS), f"a background turn has the text {text!r}")


def reconnect(context: Context) -> None:
    """Disconnect from a stream after some events, and resume it after the last one."""
    events, count = [], context.rng.randint(1, 12)
    client = SoakClient(context.accounts.address)
    with context.client() as other:
        client.use_token(context.account.token(other))
        for event in client.stream(context.sentence()):
            events.append(event)
            if len(events) == count:
                break
        client.close()
        path = f"/v1/responses/{response_id(events)}?stream=true&starting_after={events[-1].sequence}"
        if not events[-1].is_last:
            events += other.follow(path)
    check_stream(events, TOKENS)


def cancel(context: Context) -> None:
    """Cancel a streaming turn, which may complete before."""
    events: list[ReceivedEvent] = []
    with (
        context.client() as client,
        context.client() as other,
    ):
        for event in client.stream(context.sentence()):
            events.append(event)
            if len(events) == 6:
                other.post(f"/v1/responses/{response_id(events)}/cancel", {})
    _expect([event.sequence for event in events] == list(range(len(events))), "a cancelled stream has gaps")
    text = text_of(events)
    _expect(scripted_text(TOKENS).startswith(text), f"a cancelled turn has the text {text!r}")
    ended = events[-1].type in ("response.completed", "sangha:job.cancelled")
    _expect(ended, f"a cancelled stream ended with {events[-1].type}")


def chat_completion(context: Context) -> None:
    """Create a chat completion, which is not stored."""
    with context.client() as client:
        messages = [{"role": "user", "content": context.sentence()}]
        completion = client.post("/v1/chat/completions", {"model": "default", "messages": messages})
    text = completion["choices"][0]["message"]["content"]
    _expect(text == scripted_text(TOKENS), f"a completion has the text {text!r}")


def delete_turn(context: Context) -> None:
    """Stream a turn, and delete it."""
    with context.client() as client:
        events = list(client.stream(context.sentence()))
        check_stream(events, TOKENS)
        client.delete(f"/v1/responses/{response_id(events)}")


def create_memories(context: Context) -> None:
    """Create five memories, find the last one by its text, and delete the first."""
    with context.client() as client:
        texts = [context.sentence() for _ in range(5)]
        created = client.post("/v1/memories", {"memories": [{"text": text} for text in texts]})
        if created["object"] == "job":  # the workers were too busy to answer in time
            _wait_for_job(client, created["id"])
            return
        hits = client.post("/v1/memories/search", {"query": texts[-1], "limit": 20})["data"]
        _expect(any(hit["text"] == texts[-1] for hit in hits), "a search for a memory's text did not find it")
        client.delete(f"/v1/memories/{created['data'][0]['id']}")


def import_memories(context: Context) -> None:
    """Import twenty lines."""
    lines = b"\n".join(orjson.dumps({"text": context.sentence(), "speaker": "Ada"}) for _ in range(20))
    with context.client() as client:
        job = _wait_for_job(client, client.post_lines("/v1/memories/import", lines)["id"])
    _expect(job["result"]["imported"] == 20, f"an import of 20 lines has the result {job['result']}")


def search_memories(context: Context) -> None:
    """Search memories."""
    with context.client() as client:
        client.post("/v1/memories/search", {"query": f"Which {context.rng.choice(THINGS)} did I lose?"})


def embed(context: Context) -> None:
    """Embed two texts."""
    with context.client() as client:
        body = {"model": "default", "input": [context.sentence(), context.sentence()]}
        embeddings = client.post("/v1/embeddings", body)["data"]
    _expect([len(entry["embedding"]) for entry in embeddings] == [384, 384], "vectors have another size than 384")


def embed_batch(context: Context) -> None:
    """Embed a batch whose result has megabytes. A job whose end hangs would get a 503 after a minute."""
    with context.client() as client:
        body = {"model": "default", "input": [context.sentence() for _ in range(BATCH_TEXTS)]}
        embeddings = client.post("/v1/embeddings", body)["data"]
    _expect(len(embeddings) == BATCH_TEXTS, f"a batch of {BATCH_TEXTS} texts has {len(embeddings)} vectors")
    _expect(len(orjson.dumps(embeddings)) > MEBIBYTE, "the result of a batch has less than a mebibyte")


def count_tokens(context: Context) -> None:
    """Count tokens, and read the jobs and the usage."""
    with context.client() as client:
        count = client.post("/v1/responses/input_tokens", {"input": context.sentence()})
        _expect(count["input_tokens"] > 0, "a prompt has no tokens")
        client.get("/v1/jobs?limit=20")
        client.get("/v1/account/usage")


def api_key(context: Context) -> None:
    """Create, use and revoke an API key."""
    with context.client() as client:
        created = client.post("/v1/api_keys", {"name": "soak"})
        client.use_token(created["key"])
        client.get("/v1/me")
        client.use_token(context.account.token(client))
        client.delete(f"/v1/api_keys/{created['id']}")


def session(context: Context) -> None:
    """Log in, refresh the tokens twice, and log out."""
    with context.accounts.client() as client:
        tokens = client.post("/login", {"email": context.account.email, "password": PASSWORD})
        for _ in range(2):
            tokens = client.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        client.use_token(tokens["token"])
        client.post("/auth/logout", {})


def repeat_request(context: Context) -> None:
    """Send a creating request twice under one Idempotency-Key."""
    headers = {"Idempotency-Key": new_id("again")}
    with context.client() as client:
        first, second = (client.post("/v1/conversations", {}, headers) for _ in range(2))
    _expect(first["id"] == second["id"], "one Idempotency-Key created two objects")


def meditate(context: Context) -> None:
    """Run a meditation to its end."""
    with context.client() as client:
        created = client.post("/v1/meditations", {})
        meditation = _poll(client, f"/v1/meditations/{created['id']}", "status", FINAL_STATUSES)
    _expect(meditation["status"] == "completed", f"a meditation has the status {meditation['status']}: {meditation}")


def account_lifetime(context: Context) -> None:
    """Sign up, run a turn, export the account, and delete it."""
    account = SoakAccount(context.accounts.address)
    with context.accounts.client(account) as client:
        check_stream(list(client.stream(context.sentence())), TOKENS)
        _wait_for_job(client, client.post("/v1/account/export", {})["id"])
        client.delete(f"/v1/account?confirm={account.id}")


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
    "embed": (2.9, embed),
    "embed a batch": (0.1, embed_batch),
    "count tokens": (2, count_tokens),
    "API key": (2, api_key),
    "session": (1, session),
    "repeated request": (1, repeat_request),
    "meditation": (0.2, meditate),
    "account": (0.3, account_lifetime),
}


def response_id(events: Sequence[ReceivedEvent]) -> str:
    """Return the response of a stream, by its first event."""
    id_: str = events[0].json()["response"]["id"]
    return id_


def _stream(context: Context, options: Mapping[str, Any]) -> Times:
    with context.client() as client:
        began = time.monotonic()
        events = list(client.stream(context.sentence(), **options))
    check_stream(events, TOKENS)
    return next(event.at for event in events if is_delta(event)) - began, events[-1].at - began


def _wait_for_job(client: SoakClient, job_id: str) -> dict[str, Any]:
    job = _poll(client, f"/v1/jobs/{job_id}", "state", FINAL_STATES)
    _expect(job["state"] == "completed", f"a job {job['kind']} has the state {job['state']}: {job['error']}")
    return job


def _poll(client: SoakClient, path: str, field: str, final: Sequence[str]) -> dict[str, Any]:
    def ended() -> dict[str, Any]:
        value = client.get(path)
        return value if value[field] in final else {}

    return wait_until(ended, READ_TIMEOUT, interval=POLL_INTERVAL, what=f"the end of {path}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)
