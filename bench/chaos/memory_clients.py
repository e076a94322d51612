"""The clients of a fleet that use memories: imports, searches, meditations, embeddings."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.chaos.clients import FleetClient
from bench.chaos.retrying_client import WORK_TIMEOUT, HttpRequest
from bench.chaos.stream_follower import stream_path
from bench.chaos.transcripts import ClientTranscript

#: The sizes of imports: mostly small, sometimes enough to keep a worker busy for a while.
SIZES = (1, 2, 5, 10, 10, 25, 40, 80, 200)

#: The share of embeddings whose result has more than a mebibyte in its row, and their texts.
LARGE_BATCHES, LARGE_BATCH = 0.03, 530

#: Turns of the warm-up, enough for every slot of all workers to run several, and their length.
WARM_UP_TURNS, WARM_UP_TOKENS = 24, 8

#: Parts of the texts: enough for distinct vectors, and few enough for some repetitions.
SUBJECTS = ("Ana", "Bruno", "Chiara", "Dmitri", "Eun-ji", "Farid", "Greta", "Hugo")
PREDICATES = (
    "planted a fig tree", "sold the blue bicycle", "moved to the harbour", "lost a silver key", "baked rye bread",
    "learned the cello", "painted the fence", "missed the night train", "found a stray cat", "mended the roof",
)  # fmt: skip

#: The status of a search that returned the memory, and the prefix of one that did not.
FOUND, MISSING = "found", "missing "


class MemoryClient(FleetClient):
    """Requests of memories and vectors."""

    def import_memories(self) -> None:
        """Import memories, wait for them or for their job, and search for one of them. Raises DeadlineExceeded."""
        transcript = self.begin("memories", self._batch())
        prefer = {"Prefer": "respond-async"} if self.rng.random() < 0.5 else {}
        created = self.create(transcript, "/v1/memories", prefer, WORK_TIMEOUT)
        if created.get("object") == "job":
            transcript.job_id, transcript.id = str(created["id"]), ""
            transcript.final = self.poll(transcript, f"/v1/jobs/{created['id']}", "state")
        if transcript.accepted_at is not None:
            self._search(transcript)
            transcript.ended = time.monotonic()

    def embed(self) -> None:
        """Request the vectors of some texts. Raises DeadlineExceeded."""
        count = LARGE_BATCH if self.rng.random() < LARGE_BATCHES else self.rng.randrange(1, 6)
        texts = [f"{self.rng.choice(SUBJECTS)} {self.rng.choice(PREDICATES)}" for _ in range(count)]
        transcript = self.begin("embeddings", {"input": texts})
        created = self.create(transcript, "/v1/embeddings", timeout=WORK_TIMEOUT)
        if transcript.accepted_at is not None:
            vectors = [each["embedding"] for each in created["data"]]
            lengths = [round(math.sqrt(sum(number * number for number in vector)), 3) for vector in vectors]
            transcript.final = {"lengths": lengths, "usage": created["usage"]}
            transcript.ended = time.monotonic()

    def _batch(self) -> Mapping[str, Any]:
        key = self.next_key()
        return {"memories": [self._memory(key, number) for number in range(self.rng.choice(SIZES))]}

    def _memory(self, key: str, number: int) -> Mapping[str, Any]:
        subject, predicate = self.rng.choice(SUBJECTS), self.rng.choice(PREDICATES)
        year = self.rng.randrange(1950, 2020)
        text = f"{subject} {predicate} in {year}, as note {number} of {key} says."
        return {"text": text, "speaker": subject, "metadata": {"chaos": key, "number": number}}

    def _search(self, transcript: ClientTranscript) -> None:
        """Search for a memory by its text, and record whether it was found."""
        memory = self.rng.choice(transcript.request["memories"])
        query = {"query": memory["text"], "limit": 5, "metadata": memory["metadata"]}
        reply = self.http.send(transcript, HttpRequest("POST", "/v1/memories/search", query), timeout=WORK_TIMEOUT)
        texts = [hit["text"] for hit in reply.json().get("data", ())]
        transcript.statuses.append(FOUND if memory["text"] in texts else f"{MISSING}{memory['text']}")


class Meditator(FleetClient):
    """Runs meditations, and reads their changes."""

    def work(self) -> None:
        transcript = self.begin("meditation", {})
        self.create(transcript, "/v1/meditations")
        if transcript.id:
            ended = self.poll(transcript, f"/v1/meditations/{transcript.id}", "status")
            transcript.final = {**ended, "changes": self._changes(transcript)}
            transcript.ended = time.monotonic()
        self.deadline.pause(self.rng.uniform(1, 4))

    def _changes(self, transcript: ClientTranscript) -> Sequence[Mapping[str, Any]]:
        path = f"/v1/meditations/{transcript.id}/changes?limit=100"
        changes: list[Mapping[str, Any]] = []
        page = self.read(transcript, path)
        while page:
            changes += page["data"]
            if not page["has_more"]:
                break
            page = self.read(transcript, f"{path}&after={page['data'][-1]['id']}")
        return changes


class Importer(MemoryClient):
    """Imports memories."""

    def work(self) -> None:
        self.import_memories()


class EmbeddingClient(MemoryClient):
    """Requests embeddings."""

    def work(self) -> None:
        self.embed()


class WarmUp(MemoryClient):
    """Makes every process do each kind of work once, so that models and connections exist before the first fault."""

    def run(self) -> None:
        """Run once."""
        self.import_memories()
        self.embed()
        turns = [
            self.begin_turn(background=True, memory={"recall": True}, length=WARM_UP_TOKENS)
            for _ in range(WARM_UP_TURNS)
        ]
        for transcript in turns:
            self.create(transcript, "/v1/responses")
        for transcript in turns:
            self.follower.follow(transcript, stream_path(transcript))
            self.finish_turn(transcript)
