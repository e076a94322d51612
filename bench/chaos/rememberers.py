"""The clients of a fleet that work with memories: imports, searches, meditations, embeddings."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.chaos.clients import Client
from bench.chaos.door import WORK
from bench.chaos.listening import stream_path
from bench.chaos.transcripts import Transcript

#: How many memories an import brings: mostly few, now and then as many as take a worker a while.
SIZES = (1, 2, 5, 10, 10, 25, 40, 80, 200)

#: Turns that come to all slots of all workers, more than once, and how long they are.
WARM_TURNS, WARM_TOKENS = 24, 8

#: What memories are about: enough for their vectors to lie apart, and few enough for some to be alike.
WHO = ("Ana", "Bruno", "Chiara", "Dmitri", "Eun-ji", "Farid", "Greta", "Hugo")
WHAT = (
    "planted a fig tree", "sold the blue bicycle", "moved to the harbour", "lost a silver key", "baked rye bread",
    "learned the cello", "painted the fence", "missed the night train", "found a stray cat", "mended the roof",
)  # fmt: skip


class Rememberer(Client):
    """What may be done with memories."""

    def bring(self) -> None:
        """Import memories, wait for them or for their job, and search for one of them. Raises OutOfPatience."""
        transcript = self.begin("memories", self._batch())
        prefer = {"Prefer": "respond-async"} if self.rng.random() < 0.5 else {}
        made = self.create(transcript, "/v1/memories", headers=prefer, timeout=WORK)
        if made.get("object") == "job":
            transcript.job_id, transcript.id = str(made["id"]), ""
            made = self.poll(transcript, f"/v1/jobs/{made['id']}", "state")
            transcript.final = made
        if transcript.accepted_at is not None:
            self._search(transcript)
            transcript.ended = time.monotonic()

    def embed(self) -> None:
        """Ask for the vectors of some texts. Raises OutOfPatience."""
        texts = [f"{self.rng.choice(WHO)} {self.rng.choice(WHAT)}" for _ in range(self.rng.randrange(1, 6))]
        transcript = self.begin("embeddings", {"input": texts})
        made = self.create(transcript, "/v1/embeddings", timeout=WORK)
        if transcript.accepted_at is not None:
            vectors = [each["embedding"] for each in made["data"]]
            lengths = [round(math.sqrt(sum(number * number for number in vector)), 3) for vector in vectors]
            transcript.final = {"lengths": lengths, "usage": made["usage"]}
            transcript.ended = time.monotonic()

    def _batch(self) -> Mapping[str, Any]:
        key = f"{self.seed}-{self.name}-{len(self.transcripts)}"
        count = self.rng.choice(SIZES)
        return {"memories": [self._memory(key, number) for number in range(count)]}

    def _memory(self, key: str, number: int) -> Mapping[str, Any]:
        who, what = self.rng.choice(WHO), self.rng.choice(WHAT)
        year = self.rng.randrange(1950, 2020)
        text = f"{who} {what} in {year}, as note {number} of {key} says."
        return {"text": text, "speaker": who, "metadata": {"chaos": key, "number": number}}

    def _search(self, transcript: Transcript) -> None:
        """One of them must be found by its own words, unless it was closed since for repeating another."""
        wanted = self.rng.choice(transcript.asked["memories"])
        asked = {"query": wanted["text"], "limit": 5, "metadata": wanted["metadata"]}
        reply = self.doors.patiently(transcript, "POST", "/v1/memories/search", asked, timeout=WORK)
        self.doors.complain(transcript, "POST /v1/memories/search", reply)
        found = [hit["text"] for hit in reply.json().get("data", ())]
        transcript.statuses.append("found" if wanted["text"] in found else f"missing {wanted['text']}")


class Thinker(Client):
    """Meditates, and reads what that changed."""

    def work(self) -> None:
        transcript = self.begin("meditation", {})
        self.create(transcript, "/v1/meditations")
        if transcript.id:
            done = self.poll(transcript, f"/v1/meditations/{transcript.id}", "status")
            transcript.final = {**done, "changes": self._changes(transcript)}
            transcript.ended = time.monotonic()
        self.patience.idle(self.rng.uniform(1, 4))

    def _changes(self, transcript: Transcript) -> Sequence[Mapping[str, Any]]:
        path = f"/v1/meditations/{transcript.id}/changes?limit=100"
        changes: list[Mapping[str, Any]] = []
        page = self.read(transcript, path)
        while page:
            changes += page["data"]
            if not page["has_more"]:
                break
            page = self.read(transcript, f"{path}&after={page['data'][-1]['id']}")
        return changes


class Importer(Rememberer):
    """Imports memories."""

    def work(self) -> None:
        self.bring()


class Embedder(Rememberer):
    """Asks for embeddings."""

    def work(self) -> None:
        self.embed()


class Warmer(Rememberer):
    """Has every process do once all that it does: what they load and open for that is there from the start."""

    def run(self) -> None:
        """Once, and not as long as the fleet lives."""
        self.bring()
        self.embed()
        turns = [self.turn(background=True, memory={"recall": True}, length=WARM_TOKENS) for _ in range(WARM_TURNS)]
        for transcript in turns:
            self.create(transcript, "/v1/responses")
        for transcript in turns:
            self.listener.follow(transcript, stream_path(transcript))
            self.settle_turn(transcript)
