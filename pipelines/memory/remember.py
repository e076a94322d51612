"""Remembering: what is said in turns, and what callers give. No language model takes part.

Doing it again changes nothing: what a turn said is known by its items' ids, and what was given by the ids that the
request made.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from models import responses
from models.attempts import Ending
from models.ids import new_id
from models.jobs import NewJob
from models.memories import NewMemory
from models.responses import Response
from models.running import Attempt, plain_ending
from pipelines.memory.endings import wordless
from pipelines.memory.given import taken
from pipelines.memory.writing import BATCH, Embed, write

REMEMBER, CREATE = "memory.remember", "memory.create"

#: Whose messages are remembered: instructions say nothing about anybody.
SPEAKERS = ("user", "assistant")


def follow_up(response: Response) -> NewJob | None:
    """The job that remembers a turn, to follow its end; None for a turn that nobody is to remember: one that is not
    stored, as those of chat completions, or that belongs to no person."""
    if response.expires_at is not None or response.user_id is None:
        return None
    return NewJob(REMEMBER, response.account_id, {"response_id": response.id})


def run_remember(embed: Embed, attempt: Attempt) -> Ending:
    """Remember what a turn has said. One that has been deleted is gone."""
    job = attempt.job
    with attempt.database.connection() as connection:
        response = responses.read(connection, job.arguments["response_id"], job.account_id)
    said = list(spoken(response)) if response else []
    new = 0
    if response is not None and response.user_id is not None:
        new = _in_batches(embed, attempt, response.user_id, said)[1]
    return plain_ending(attempt, "completed", result={"remembered": new})


def spoken(response: Response) -> Iterator[NewMemory]:
    """What was said in a turn, in that order, all of it at one time: a turn that had to wait was said no earlier."""
    for item in (*_brought(response.input), *response.output):
        text = text_of(item)
        if item.get("type") == "message" and item.get("role") in SPEAKERS and text.strip():
            yield NewMemory(
                new_id("mem"),
                text,
                item.get("name") or item["role"],
                response.created_at,
                conversation_id=response.thread,
                response_id=response.id,
                unique_key=item["id"],
            )


def _brought(items: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What came with this turn: a client that keeps no state here sends all that was said before again."""
    last = max((place for place, item in enumerate(items) if item.get("role") == "assistant"), default=-1)
    return items[last + 1 :]


def text_of(item: Mapping[str, Any]) -> str:
    """The text of a message, without its pictures and files."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or [] if isinstance(part.get("text"), str))


def run_create(embed: Embed, attempt: Attempt) -> Ending:
    """Write what a request gave. Afterwards it can be found."""
    arguments = attempt.job.arguments
    now = datetime.fromisoformat(arguments["now"])
    given = zip(arguments["ids"], arguments["memories"], strict=True)
    news = [taken(told).memory(memory_id, now) for memory_id, told in given]
    ids, _ = _in_batches(embed, attempt, arguments["user_id"], news)
    return wordless(attempt, {"ids": ids})


def _in_batches(embed: Embed, attempt: Attempt, user_id: str, news: Sequence[NewMemory]) -> tuple[list[str], int]:
    """Write memories, however many; says how far it is, and hears a cancel. Their ids, and how many are new."""
    ids: list[str] = []
    new = 0
    for begin in range(0, len(news), BATCH):
        if begin:
            attempt.progress(begin, len(news), note="memories written")
        attempt.check()
        written = write(attempt.database, embed, attempt.job.account_id, user_id, news[begin : begin + BATCH])
        ids += written.ids
        new += written.new
    return ids, new
