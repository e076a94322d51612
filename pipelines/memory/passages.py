"""Split long memories into passages, and keep the index entries of these.

A memory's own vector covers its beginning, and BM25 divides the weight of a word by the length of the text. So what is
said far inside a long memory is found by the passage that says it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import regex

from models.jobs.jobs import NewJob, enqueue
from models.memory import passages, postings
from models.memory.passages import NewPassage, posting_ordinal
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection
from pipelines.memory import quotes, terms

REINDEX = "memory.reindex"

#: Characters of a passage, at most: the shortest quotes of a prompt have 256, and are cut at a word.
MAX_PASSAGE = 230

#: Characters of a text from which on it is split. The vector of a shorter one covers all of it.
MIN_LONG = 1000

#: The end of a sentence or a line, with the spaces that follow. A match begins with the first of several marks: tried
#: from each of them, a text of marks alone would take quadratic time.
SENTENCE_END = regex.compile(
    r"(?:(?:\G|(?<![.!?…]))[.!?…]++[\"'”»)]*+\s++|[。！？।؟]+|\n+)"  # noqa: RUF001
)


def split_passages(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the length of each passage of a long text, in characters; none of a short one."""
    if len(text) >= MIN_LONG:
        yield from _spans(text)


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the length of each sentence, in characters; long sentences are split into passages."""
    start = 0
    for end in (*(match.end() for match in SENTENCE_END.finditer(text)), len(text)):
        for offset, length in _spans(text[start:end]):
            yield start + offset, length
        start = end


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the length of each passage of a text.

    A passage ends with a sentence where one ends in its second half, else with a word.
    """
    start = 0
    while start < len(text):
        length = _passage_length(text[start : start + MAX_PASSAGE + 1])
        if text[start : start + length].strip():
            yield start, length
        start += length


def _passage_length(text: str) -> int:
    """Return the length of the first passage of a text."""
    if len(text) <= MAX_PASSAGE:
        return len(text)
    ends = [match.end() for match in SENTENCE_END.finditer(text, MAX_PASSAGE // 2) if match.end() <= MAX_PASSAGE]
    return ends[-1] if ends else max(len(quotes.cut_text(text, MAX_PASSAGE)), 1)


class PassageEntry(NamedTuple):
    """Where a passage is in its text, and its weighted terms."""

    start: int
    length: int
    weights: Mapping[str, float]


def passage_entries(text: str) -> list[PassageEntry]:
    """Find the passages of a long text, and weigh their terms."""
    return [
        PassageEntry(start, length, terms.term_weights(text[start : start + length]))
        for start, length in split_passages(text)
    ]


def insert_passages(connection: Connection, space: Space, entries: Mapping[int, Sequence[PassageEntry]]) -> None:
    """Insert the passages of memories by ordinal, and enqueue the job that embeds them.

    The caller holds the lock of the space.
    """
    found = [(ordinal, entry) for ordinal in entries for entry in entries[ordinal]]
    if not found:
        return
    first = passages.take_numbers(connection, space.id, len(found))
    numbered = list(enumerate(found, start=first))
    rows = [
        NewPassage(number, ordinal, entry.start, entry.length, [*entry.weights])
        for number, (ordinal, entry) in numbered
    ]
    passages.insert(connection, space.id, rows)
    postings.add(connection, space.id, {posting_ordinal(number): entry.weights for number, (_, entry) in numbered})
    enqueue(connection, reindex_job(space.key))


def remove_passages(connection: Connection, space: Space, ordinals: Sequence[int]) -> None:
    """Delete the passages of memories with their index entries. The caller holds the lock of the space."""
    if space.next_passage:
        postings.remove(connection, space.id, passages.delete(connection, space.id, ordinals))


def reindex_job(key: SpaceKey) -> NewJob:
    """Build the job that indexes the rest of a space. It is inserted unless one is queued already."""
    serial_key = f"{REINDEX} {key.lane}"
    return NewJob(REINDEX, key.account_id, key.arguments, serial_key=serial_key, coalesce=True, owner_id=key.user_id)
