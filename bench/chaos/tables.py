"""Rules about turns that need the tables: one row a turn, one end, one bill, and an archive that is what was heard."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from bench.chaos.transcripts import RESTARTED, Heard, Transcript, text_of
from bench.chaos.violations import Violation
from models.journal.events import Event, from_lines
from models.platform.database import Connection, fetch_all

Row = Mapping[str, Any]

#: What the stream of a turn ends with, by the state of its job.
ENDS: Mapping[str, Sequence[str]] = {
    "completed": ("response.completed", "response.incomplete"),
    "cancelled": ("sangha:job.cancelled",),
    "failed": ("response.failed",),
    "dead": ("response.failed",),
}

TURNS = """
SELECT responses.id, responses.job_id, request -> 'metadata' ->> 'chaos' AS key, usage, conversation_id, unremembered,
       state, attempt, failures, crashes, rewound_at, error, cancel_requested_at IS NOT NULL AS cancel_requested,
       jsonb_array_length(input) + jsonb_array_length(output) AS items,
       usage_records.input_tokens, usage_records.output_tokens
FROM responses JOIN jobs ON jobs.id = responses.job_id LEFT JOIN usage_records ON usage_records.job_id = jobs.id
WHERE responses.account_id = ANY(%(accounts)s)
"""

CHUNKS = "SELECT first_sequence, last_sequence, tokens, events FROM job_events WHERE job_id = %(job_id)s ORDER BY 1"

# Turns of one conversation that ran at the same time.
TOGETHER = """
SELECT earlier.id AS earlier, later.id AS later, earlier.serial_key
FROM jobs AS earlier JOIN jobs AS later ON later.serial_key = earlier.serial_key AND earlier.id < later.id
WHERE earlier.account_id = ANY(%(accounts)s) AND earlier.kind = 'turn.run' AND later.kind = 'turn.run'
  AND later.started_at < earlier.finished_at
"""

# What a conversation holds of each turn.
ITEMS = """
SELECT responses.id, count(conversation_items.id) AS held FROM responses
LEFT JOIN conversation_items ON conversation_items.response_id = responses.id
WHERE responses.account_id = ANY(%(accounts)s) AND responses.conversation_id IS NOT NULL GROUP BY responses.id
"""

# The months' sums against the bills.
SUMS = """
SELECT account_id, coalesce(sum(billed), 0)::bigint AS billed, coalesce(sum(counted), 0)::bigint AS counted FROM (
    SELECT account_id, input_tokens + output_tokens AS billed, 0 AS counted FROM usage_records
    UNION ALL SELECT account_id, 0, tokens FROM quota_usage) AS both_sides
WHERE account_id = ANY(%(accounts)s) GROUP BY account_id HAVING sum(billed) <> sum(counted)
"""

BILLS = "SELECT job_id, input_tokens, output_tokens FROM usage_records WHERE account_id = ANY(%(accounts)s)"


def judged(connection: Connection, transcripts: Sequence[Transcript], accounts: Sequence[str]) -> Iterator[Violation]:
    """What is wrong with turns and bills."""
    rows = fetch_all(connection, TURNS, {"accounts": accounts})
    of_key: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_key[row["key"]].append(row)
    for transcript in transcripts:
        if transcript.kind == "turn":
            yield from _turn(connection, transcript, of_key.pop(transcript.key, []))
    for key, unknown in of_key.items():
        yield Violation("once a key", str(key), f"nobody asked for {[row['id'] for row in unknown]}")
    yield from _conversations(connection, accounts, rows)
    yield from _bills(connection, transcripts, accounts, rows)


def _turn(connection: Connection, transcript: Transcript, rows: Sequence[Row]) -> Iterator[Violation]:
    if len(rows) > 1:
        yield Violation("once a key", transcript.subject, f"{transcript.key} made {[row['id'] for row in rows]}")
    elif not rows and transcript.accepted_at is not None:
        yield Violation("kept", transcript.subject, "it was accepted, and is gone")
    for row in rows[:1]:
        chunks = fetch_all(connection, CHUNKS, {"job_id": row["job_id"]})
        yield from archived(transcript, row, chunks)
        yield from agreed(transcript, row)
        yield from billed(transcript, row, chunks)


def archived(transcript: Transcript, row: Row, chunks: Sequence[Row]) -> Iterator[Violation]:
    """The archive's chunks follow one another from 0, and tell what was heard, to the byte."""
    following = 0
    for chunk in chunks:
        if chunk["first_sequence"] != following:
            yield Violation("archive", transcript.subject, f"{chunk['first_sequence']} follows {following - 1}")
            return
        following = chunk["last_sequence"] + 1
    events = _events(chunks)
    if [event.sequence for event in events] != list(range(following)):
        yield Violation("archive", transcript.subject, f"{len(events)} events have the numbers of {following}")
    if transcript.over and not same(transcript, events):
        yield Violation(
            "archive", transcript.subject, f"it tells otherwise than was heard: {_apart(transcript, events)}"
        )


def same(transcript: Transcript, events: Sequence[Event]) -> bool:
    """Whether archived events are those that a client heard to the end."""
    heard = transcript.standing()
    if transcript.exact:
        return [each.data for each in heard] == [event.data for event in events]
    return [each.json() for each in heard] == [orjson.loads(event.data) for event in events]


def _apart(transcript: Transcript, events: Sequence[Event]) -> str:
    heard = transcript.standing()
    for mine, theirs in zip(heard, events, strict=False):
        if mine.json() != orjson.loads(theirs.data):
            return f"{mine.sequence}: {mine.data[:160]!r} was heard, {theirs.data[:160]!r} is kept"
    return f"{len(heard)} events were heard, {len(events)} are kept"


def agreed(transcript: Transcript, row: Row) -> Iterator[Violation]:
    """Row and stream end alike, in a way that was asked for."""
    state = row["state"]
    if transcript.over and transcript.standing()[-1].type not in ENDS.get(state, ()):
        yield Violation(
            "ends", transcript.subject, f"{state} in its row, {transcript.standing()[-1].type} on its stream"
        )
    if state == "cancelled" and not transcript.cancels:
        yield Violation("ends", transcript.subject, "it was cancelled, and nobody asked for that")
    if state == "failed":
        yield Violation("ends", transcript.subject, f"it failed: {row['error']}")


def billed(transcript: Transcript, row: Row, chunks: Sequence[Row]) -> Iterator[Violation]:
    """What is billed is what was journalled, once, and what the response says."""
    untouched = row["state"] == "cancelled" and row["attempt"] == 0
    if untouched or row["state"] not in ENDS:
        if row["output_tokens"] is not None:
            yield Violation("billed", transcript.subject, "it never began to be answered")
        return
    events = _events(chunks)
    words = len(text_of(_as_heard(events)).split())
    prompt = next(
        (orjson.loads(event.data)["prompt_tokens"] for event in events if _is(event, "sangha:engine.started")), 0
    )
    journalled = sum(chunk["tokens"] for chunk in chunks) - sum(_discarded(event) for event in events)
    usage = row["usage"] or {}
    told = {
        "words in the archive": (prompt, words),
        "tokens journalled": (prompt, journalled),
        "response": (usage.get("input_tokens"), usage.get("output_tokens")),
        "bill": (row["input_tokens"], row["output_tokens"]),
    }
    if len(set(told.values())) > 1:
        yield Violation("billed", transcript.subject, f"input and output tokens differ: {told}")


def _conversations(connection: Connection, accounts: Sequence[str], rows: Sequence[Row]) -> Iterator[Violation]:
    for pair in fetch_all(connection, TOGETHER, {"accounts": accounts}):
        yield Violation("one at a time", pair["serial_key"], f"{pair['later']} began before {pair['earlier']} ended")
    held = {row["id"]: row["held"] for row in fetch_all(connection, ITEMS, {"accounts": accounts})}
    for row in rows:
        if row["conversation_id"] is not None and row["state"] in ENDS:
            wanted = 0 if row["attempt"] == 0 else row["items"]
            if held[row["id"]] != wanted:
                yield Violation("conversation", row["id"], f"{held[row['id']]} of its {wanted} items stand there")


def _bills(
    connection: Connection, transcripts: Sequence[Transcript], accounts: Sequence[str], rows: Sequence[Row]
) -> Iterator[Violation]:
    for row in fetch_all(connection, SUMS, {"accounts": accounts}):
        yield Violation("billed", row["account_id"], f"{row['billed']} tokens in bills, {row['counted']} in the months")
    bills: dict[str, Row] = {each["job_id"]: each for each in fetch_all(connection, BILLS, {"accounts": accounts})}
    for turn in rows:
        bills.pop(turn["job_id"], None)
    for transcript in transcripts:
        if transcript.kind == "embeddings" and transcript.ended is not None:
            yield from embedded(transcript, bills.pop(transcript.job_id, None))
    unheard = {each.job_id for each in transcripts if each.ended is None}
    for job_id in bills.keys() - unheard:
        yield Violation("billed", job_id, "nobody asked for it, or it was asked for once and billed twice")


def embedded(transcript: Transcript, bill: Row | None) -> Iterator[Violation]:
    """Vectors of length 1, one a text, billed as the answer says."""
    final: Mapping[str, Any] = transcript.final or {}
    if final.get("lengths") != [1.0] * len(transcript.asked["input"]):
        yield Violation("embeddings", transcript.subject, f"lengths {final.get('lengths')}")
    if bill is None or bill["input_tokens"] != final["usage"]["prompt_tokens"]:
        yield Violation("billed", transcript.subject, f"the answer says {final.get('usage')}, the bill {bill}")


def _events(chunks: Sequence[Row]) -> list[Event]:
    return [event for chunk in chunks for event in from_lines(chunk["first_sequence"], chunk["events"].encode())]


def _as_heard(events: Sequence[Event]) -> list[Heard]:
    return [Heard(0.0, 0, event.sequence, event.type.decode(), event.data) for event in events]


def _is(event: Event, type_: str) -> bool:
    return event.type == type_.encode()


def _discarded(event: Event) -> int:
    return int(orjson.loads(event.data)["discarded_tokens"]) if _is(event, RESTARTED) else 0
