"""`memory.search`: a question as a job, for callers who have no embedder. Its answer is in its row until it is read."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from typing_extensions import TypedDict

from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory.memories import Filters, Memory, MemoryKind
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


class HitObject(NeighbourObject):
    """A memory that matches a search. The score is the sum of its parts, such as `dense`, `lexical`, `recency` and
    `importance`.
    """

    score: float
    parts: dict[str, float]
    neighbours: list[NeighbourObject]


def enqueue_search(database: Database, caller: Caller, query: Query, job_id: str, limits: Limits) -> None:
    """Enqueue a question. Tell the queue afterwards. Raises TooMany."""
    enqueue_memory_job(database, caller, KIND, asdict(query), job_id, limits)


def run(embed: Embed, noting: RecallCounter, attempt: Attempt) -> Ending:
    """Answer a question. The hits stand in the row only, which goes when they are read."""
    arguments = attempt.job.arguments
    found = recall(attempt.database, embed, attempt.job.account_id, arguments["user_id"], parse_query(arguments))
    noting.add(hit.memory.id for hit in found[:COUNTED_HITS])
    ending = plain_ending(attempt, "completed", result={"hits": len(found)})
    return Ending("completed", ending.events, result={"hits": [hit_object(hit) for hit in found]})


def parse_query(arguments: dict[str, Any]) -> Query:
    """From a job's arguments."""
    filters = dict(arguments["filters"])
    for name in ("after", "before"):
        filters[name] = datetime.fromisoformat(filters[name]) if filters[name] else None
    return Query(arguments["text"], arguments["limit"], Filters(**filters), arguments["neighbours"])


def hit_object(hit: Hit) -> HitObject:
    """A hit as it goes out."""
    return {
        **_told(hit.memory),
        "score": float(hit.score),
        "parts": {name: float(part) for name, part in hit.parts.items()},
        "neighbours": [_told(memory) for memory in hit.neighbours],
    }


def _told(memory: Memory) -> NeighbourObject:
    return {
        "id": memory.id,
        "text": memory.text,
        "kind": memory.kind,
        "speaker": memory.speaker,
        "occurred_at": memory.occurred_at.isoformat(),
        "conversation_id": memory.conversation_id,
        "metadata": memory.metadata,
    }
