"""The kinds of work, how often each comes, and how its answer is checked. A broken promise raises Broken."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.client import Broken, Heard, check, is_delta, script, text_of
from bench.soak.people import PASSWORD, PATIENCE, People, Person, Visitor
from bench.stack import FORGETFUL
from models.platform.ids import new_id

#: What an answer says, and how fast: slow enough to be left and cancelled in the middle.
TOKENS = 20
SCRIPT = f"tokens={TOKENS},rate=150"

#: Seconds between two looks at what runs in the background.
POLL = 0.1

THINGS = ("river", "dog", "garden", "piano", "train", "coffee", "winter", "bicycle", "sister", "harbour")
DEEDS = ("bought", "lost", "painted", "remembered", "feared", "praised", "repaired", "dreamt of")

#: The states that a background turn does not leave.
OVER = ("completed", "failed", "cancelled", "incomplete")


@dataclass(frozen=True, slots=True)
class Scene:
    """Who works, and what is drawn from."""

    people: People
    person: Person
    chance: random.Random

    def sentence(self) -> str:
        """Something to say, which is seldom said twice."""
        thing, deed, number = self.chance.choice(THINGS), self.chance.choice(DEEDS), self.chance.randrange(10_000)
        return f"I {deed} the {thing} number {number} on day {self.chance.randrange(365)}."


#: What is done, and the seconds of a whole streamed turn to its first and its last event; None for other work.
Times = tuple[float, float] | None
Work = Callable[[Scene], Times]


def turn(scene: Scene) -> Times:
    """A turn that is remembered and reminded."""
    return _streamed(scene, {})


def forgetful(scene: Scene) -> Times:
    """A turn without memory."""
    return _streamed(scene, FORGETFUL)


def talk(scene: Scene) -> Times:
    """A conversation of three turns, which one time in three is deleted at the end."""
    with scene.people.visitor(scene.person) as visitor:
        conversation = visitor.post("/v1/conversations", {})["id"]
        for _ in range(3):
            check(list(visitor.stream(scene.sentence(), conversation=conversation)), TOKENS)
        items = visitor.get(f"/v1/conversations/{conversation}/items")["data"]
        _expect(len(items) == 6, f"a conversation of three turns has {len(items)} items")
        if scene.chance.random() < 1 / 3:
            visitor.delete(f"/v1/conversations/{conversation}")
    return None


def background(scene: Scene) -> Times:
    """A turn that is polled."""
    with scene.people.visitor(scene.person) as visitor:
        made = visitor.post("/v1/responses", {"input": scene.sentence(), "background": True})
        told = _until(visitor, f"/v1/responses/{made['id']}", "status", OVER)
        _expect(told["status"] == "completed", f"a background turn ended as {told['status']}")
        text = "".join(part["text"] for item in told["output"] for part in item["content"])
        _expect(text == script(TOKENS), f"a background turn said {text!r}")
    return None


def leave(scene: Scene) -> Times:
    """A follower that leaves after some events, comes back behind them, and has read all."""
    events, wanted = [], scene.chance.randint(1, 12)
    visitor = Visitor(scene.people.address)
    with scene.people.visitor(scene.person) as other:
        visitor.speak_for(scene.person.token(other))
        for event in visitor.stream(scene.sentence()):
            events.append(event)
            if len(events) == wanted:
                break
        visitor.close()
        path = f"/v1/responses/{response_id(events)}?stream=true&starting_after={events[-1].sequence}"
        if not _ended(events):
            events += other.follow(path)
    check(events, TOKENS)
    return None


def cancel(scene: Scene) -> Times:
    """A turn that is cancelled while it speaks; it may have ended before that is heard."""
    events: list[Heard] = []
    with scene.people.visitor(scene.person) as visitor, scene.people.visitor(scene.person) as other:
        for event in visitor.stream(scene.sentence()):
            events.append(event)
            if len(events) == 6:
                other.post(f"/v1/responses/{response_id(events)}/cancel", {})
    _expect([event.sequence for event in events] == list(range(len(events))), "a cancelled stream has gaps")
    _expect(script(TOKENS).startswith(text_of(events)), f"a cancelled turn said {text_of(events)!r}")
    _expect(_ended(events), f"a cancelled stream ended with {events[-1].type}")
    return None


def completion(scene: Scene) -> Times:
    """A chat completion, which is not stored."""
    with scene.people.visitor(scene.person) as visitor:
        messages = [{"role": "user", "content": scene.sentence()}]
        told = visitor.post("/v1/chat/completions", {"model": "default", "messages": messages})
    text = told["choices"][0]["message"]["content"]
    _expect(text == script(TOKENS), f"a completion said {text!r}")
    return None


def forget(scene: Scene) -> Times:
    """A turn that is deleted once it has been read."""
    with scene.people.visitor(scene.person) as visitor:
        events = list(visitor.stream(scene.sentence()))
        check(events, TOKENS)
        visitor.delete(f"/v1/responses/{response_id(events)}")
    return None


def remember(scene: Scene) -> Times:
    """Five memories, the last of which is found by its words."""
    with scene.people.visitor(scene.person) as visitor:
        texts = [scene.sentence() for _ in range(5)]
        made = visitor.post("/v1/memories", {"memories": [{"text": text} for text in texts]})
        if made["object"] == "job":  # the workers are busy, and it is told later
            _finished(visitor, made["id"])
            return None
        found = visitor.post("/v1/memories/search", {"query": texts[-1], "limit": 20})["data"]
        _expect(any(hit["text"] == texts[-1] for hit in found), "a memory was not found by its own words")
        visitor.delete(f"/v1/memories/{made['data'][0]['id']}")
    return None


def bring(scene: Scene) -> Times:
    """An import of twenty lines."""
    lines = b"\n".join(orjson.dumps({"text": scene.sentence(), "speaker": "Ada"}) for _ in range(20))
    with scene.people.visitor(scene.person) as visitor:
        job = _finished(visitor, visitor.bring("/v1/memories/import", lines)["id"])
    _expect(job["result"]["imported"] == 20, f"an import of 20 lines came to {job['result']}")
    return None


def search(scene: Scene) -> Times:
    """A search."""
    with scene.people.visitor(scene.person) as visitor:
        visitor.post("/v1/memories/search", {"query": f"Which {scene.chance.choice(THINGS)} did I lose?"})
    return None


def embed(scene: Scene) -> Times:
    """Vectors of two texts."""
    with scene.people.visitor(scene.person) as visitor:
        told = visitor.post("/v1/embeddings", {"model": "default", "input": [scene.sentence(), scene.sentence()]})
    _expect([len(entry["embedding"]) for entry in told["data"]] == [384, 384], "vectors of another size")
    return None


def count(scene: Scene) -> Times:
    """A count of tokens, and a look around."""
    with scene.people.visitor(scene.person) as visitor:
        told = visitor.post("/v1/responses/input_tokens", {"input": scene.sentence()})
        _expect(told["input_tokens"] > 0, "a count of no tokens")
        visitor.get("/v1/jobs?limit=20")
        visitor.get("/v1/account/usage")
    return None


def key(scene: Scene) -> Times:
    """An API key that is made, shown once and revoked."""
    with scene.people.visitor(scene.person) as visitor:
        made = visitor.post("/v1/api_keys", {"name": "soak"})
        visitor.speak_for(made["key"])
        visitor.get("/v1/me")
        visitor.speak_for(scene.person.token(visitor))
        visitor.delete(f"/v1/api_keys/{made['id']}")
    return None


def session(scene: Scene) -> Times:
    """A login that is refreshed twice and ended."""
    with scene.people.visitor() as visitor:
        told = visitor.post("/login", {"email": scene.person.email, "password": PASSWORD})
        for _ in range(2):
            told = visitor.post("/auth/refresh", {"refresh_token": told["refresh_token"]})
        visitor.speak_for(told["token"])
        visitor.post("/auth/logout", {})
    return None


def repeat(scene: Scene) -> Times:
    """The same creating request twice, under one Idempotency-Key."""
    with scene.people.visitor(scene.person) as visitor:
        first, second = (visitor.post_once("/v1/conversations", {}, key=name) for name in [new_id("again")] * 2)
    _expect(first["id"] == second["id"], "one Idempotency-Key has made two things")
    return None


def meditate(scene: Scene) -> Times:
    """Memories thought over, to the end."""
    with scene.people.visitor(scene.person) as visitor:
        begun = visitor.post("/v1/meditations", {})
        told = _until(visitor, f"/v1/meditations/{begun['id']}", "status", OVER)
    _expect(told["status"] == "completed", f"a meditation ended as {told['status']}: {told}")
    return None


def stay(scene: Scene) -> Times:
    """Somebody who signs up, has a turn, takes everything home, and has the account erased."""
    guest = Person(scene.people.address)
    with scene.people.visitor(guest) as visitor:
        check(list(visitor.stream(scene.sentence())), TOKENS)
        _finished(visitor, visitor.post("/v1/account/export", {})["id"])
        visitor.delete(f"/v1/account?confirm={guest.account_id}")
    return None


#: How often each kind comes, among all.
MIX: Mapping[str, tuple[float, Work]] = {
    "turn": (34, turn),
    "forgetful turn": (8, forgetful),
    "conversation": (6, talk),
    "background turn": (10, background),
    "leave and rejoin": (10, leave),
    "cancel": (6, cancel),
    "completion": (6, completion),
    "forget": (3, forget),
    "remember": (3, remember),
    "import": (0.5, bring),
    "search": (4, search),
    "embed": (3, embed),
    "count": (2, count),
    "api key": (2, key),
    "session": (1, session),
    "repeat": (1, repeat),
    "meditate": (0.2, meditate),
    "stay": (0.3, stay),
}


def response_id(events: Sequence[Heard]) -> str:
    """The response that a stream is of, by its first event."""
    found: str = events[0].json()["response"]["id"]
    return found


def _streamed(scene: Scene, options: Mapping[str, Any]) -> Times:
    with scene.people.visitor(scene.person) as visitor:
        began = time.perf_counter()
        events = list(visitor.stream(scene.sentence(), **options))
    check(events, TOKENS)
    return next(event.at for event in events if is_delta(event)) - began, events[-1].at - began


def _ended(events: Sequence[Heard]) -> bool:
    return events[-1].type in ("response.completed", "sangha:job.cancelled")


def _finished(visitor: Visitor, job_id: str) -> dict[str, Any]:
    job = _until(visitor, f"/v1/jobs/{job_id}", "state", ("completed", "failed", "cancelled", "dead"))
    _expect(job["state"] == "completed", f"a job {job['kind']} ended as {job['state']}: {job['error']}")
    return job


def _until(visitor: Visitor, path: str, field: str, ends: Sequence[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while (told := visitor.get(path))[field] not in ends:
        _expect(time.monotonic() < deadline, f"{path} does not end: {told[field]}")
        time.sleep(POLL)
    return told


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise Broken(otherwise)
