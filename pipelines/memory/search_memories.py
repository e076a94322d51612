"""`memory.search`: search a space in a job, for processes that have no embedder.

The hits are stored in the job's row, which is deleted when they are read.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from typing_extensions import TypedDict

from models.accounts.plans import Limits
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory.memories import Filters, Memory, MemoryKind
from models.memory.spaces import SpaceKey
from models.platform.database import Database
from pipelines.memory.memory_jobs import enqueue_memory_job
from pipelines.memory.recall import Hit, Query, recall
from pipelines.memory.recall_counter import COUNTED_HITS, RecallCounter
from pipelines.memory.store import Embed

KIND = "memory.search"


class NeighbourObject(TypedDict):
    """A memory directly before or after a hit, in the same conversation."""

    id: str
    kind: MemoryKind
    text: str
    speaker: str
    occurred_at: str
    conversation_id: str | None
    metadata: dict[str, Any]


class PassageObject(TypedDict):
    """A part of a long memory: its first character, and its text."""

    start: int
    text: str


class HitObject(NeighbourObject):
    """A memory that matches a search. The score is the sum of its parts, such as `dense`, `lexical`, `recency` and
    `importance`. `passage` is the part of a long memory that matches best; null for a memory of less than 1,000
    characters.
    """

    passage: PassageObject | None
    score: float
    parts: dict[str, float]
    neighbours: list[NeighbourObject]


def enqueue_search(database: Database, key: SpaceKey, query: Query, job_id: str, limits: Limits) -> None:
    """Enqueue a search of a space; the caller nudges the queue afterwards. Raises LimitExceeded."""
    enqueue_memory_job(database, key, KIND, asdict(query), job_id, limits)


def run(embed: Embed, counter: RecallCounter, attempt: Attempt) -> Ending:
    """Search a space. The journal gets only the number of hits. Raises EngineError."""
    arguments = attempt.job.arguments
    query = query_from_arguments(arguments)
    hits = recall(attempt.database, embed, SpaceKey.of_job(attempt.job), query)
    counter.add(hit.memory.id for hit in hits[:COUNTED_HITS])
    ending = plain_ending(attempt, "completed", result={"hits": len(hits)})
    return Ending("completed", ending.events, result={"hits": [hit_object(hit) for hit in hits]})


def query_from_arguments(arguments: dict[str, Any]) -> Query:
    """Parse a query from a job's arguments, where times are RFC 3339 text."""
    filters = dict(arguments["filters"])
    for name in ("after", "before"):
        filters[name] = datetime.fromisoformat(filters[name]) if filters[name] else None
    return Query(arguments["text"], arguments["limit"], Filters(**filters), arguments["neighbours"])


def hit_object(hit: Hit) -> HitObject:
    """Convert a hit to its API object."""
    return {
        **_neighbour_object(hit.memory),
        "score": float(hit.score),
        "passage": _passage_object(hit),
        "parts": {name: float(part) for name, part in hit.parts.items()},
        "neighbours": [_neighbour_object(memory) for memory in hit.neighbours],
    }


def _passage_object(hit: Hit) -> PassageObject | None:
    if hit.passage is None:
        return None
    start, length = hit.passage
    return {"start": start, "text": hit.memory.text[start : start + length]}


def _neighbour_object(memory: Memory) -> NeighbourObject:
    return {
        "id": memory.id,
        "text": memory.text,
        "kind": memory.kind,
        "speaker": memory.speaker,
        "occurred_at": memory.occurred_at.isoformat(),
        "conversation_id": memory.conversation_id,
        "metadata": memory.metadata,
    }
