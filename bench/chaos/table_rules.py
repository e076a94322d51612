"""Rules about turns that need the tables: one row, one end and one bill a turn, and an archive equal to the stream."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson

from bench.chaos.excuses import Excuses
from bench.chaos.stream_rules import check_marks
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.sse import ReceivedEvent, text_of
from models.journal.archive import unpack
from models.journal.events import Event, from_lines, to_lines
from models.journal.shared_fields import complete_events
from models.platform.database import Connection, fetch_all
from pipelines.chat.transcript import ANSWER_RESTARTED, ENGINE_STARTED
from web.api.turns.standard_events import StandardEvents

NONE = Excuses()

TableRow = Mapping[str, Any]

#: The last event of a turn's stream, by the state of its job.
LAST_EVENTS: Mapping[str, Sequence[str]] = {
    "completed": ("response.completed", "response.incomplete"),
    "cancelled": ("sangha:job.cancelled",),
    "failed": ("response.failed",),
    "dead": ("response.failed",),
}

TURNS = """
SELECT responses.id, responses.job_id, request -> 'metadata' ->> 'chaos' AS key, usage, conversation_id, unremembered,
       state, attempt, failures, crashes, started_at, rewound_at, error,
       cancel_requested_at IS NOT NULL AS cancel_requested,
       jsonb_array_length(input) + jsonb_array_length(output) AS items,
       usage_records.input_tokens, usage_records.output_tokens
FROM responses JOIN all_jobs AS jobs ON jobs.id = responses.job_id
LEFT JOIN usage_records ON usage_records.job_id = jobs.id
WHERE responses.account_id = ANY(%(accounts)s)
"""

# The chunks of a moved turn are one packed value.
CHUNKS = """
SELECT first_sequence, last_sequence, tokens, events, NULL::bytea AS packed
FROM job_events WHERE job_id = %(job_id)s
UNION ALL
SELECT 0, last_sequence, tokens, NULL, events FROM ended_jobs WHERE id = %(job_id)s AND events IS NOT NULL
ORDER BY first_sequence
"""

# Turns of one conversation that ran at the same time.
OVERLAPPING_TURNS = """
WITH turns AS (
    SELECT jobs.id, thread, started_at, finished_at FROM responses JOIN all_jobs AS jobs ON jobs.id = job_id
    WHERE responses.account_id = ANY(%(accounts)s)
)
SELECT earlier.id AS earlier, later.id AS later, thread
FROM turns AS earlier JOIN turns AS later USING (thread)
WHERE (earlier.started_at, earlier.id) < (later.started_at, later.id) AND later.started_at < earlier.finished_at
"""

# The number of a conversation's items that belong to each turn.
ITEMS = """
SELECT responses.id, count(conversation_items.id) AS stored FROM responses
LEFT JOIN conversation_items ON conversation_items.response_id = responses.id
WHERE responses.account_id = ANY(%(accounts)s) AND responses.conversation_id IS NOT NULL GROUP BY responses.id
"""

# Accounts whose monthly sums differ from their bills.
SUMS = """
SELECT account_id, coalesce(sum(billed), 0)::bigint AS billed, coalesce(sum(counted), 0)::bigint AS counted FROM (
    SELECT account_id, input_tokens + output_tokens AS billed, 0 AS counted FROM usage_records
    UNION ALL SELECT account_id, 0, tokens FROM quota_usage) AS both_sides
WHERE account_id = ANY(%(accounts)s) GROUP BY account_id HAVING sum(billed) <> sum(counted)
"""

# Bills of requests. Those of reflection belong to jobs of the platform's own.
BILLS = """
SELECT job_id, input_tokens, output_tokens FROM usage_records LEFT JOIN all_jobs AS jobs ON jobs.id = job_id
WHERE usage_records.account_id = ANY(%(accounts)s) AND coalesce(kind, '') <> ALL('{memory.fact,memory.insight}')
"""


def check(
    connection: Connection,
    transcripts: Sequence[ClientTranscript],
    accounts: Sequence[str],
    excuses: Excuses = NONE,
) -> Iterator[Violation]:
    """Check turns and bills."""
    rows = fetch_all(connection, TURNS, {"accounts": accounts})
    by_key: dict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        by_key[row["key"]].append(row)
    for transcript in transcripts:
        if transcript.kind == "turn":
            own = by_key.pop(transcript.key, [])
            yield from _check_turn(connection, transcript, own, excused=transcript.key in excuses.lost)
    for key, unknown in by_key.items():
        yield Violation("once a key", str(key), f"no client requested {[row['id'] for row in unknown]}")
    yield from _check_conversations(connection, accounts, rows)
    ordered = [each for each in transcripts if each.key not in excuses.lost | excuses.mixed]
    yield from check_order(ordered, rows)
    yield from _check_bills(connection, transcripts, accounts, rows, excuses.lost)


def _check_turn(
    connection: Connection, transcript: ClientTranscript, rows: Sequence[TableRow], *, excused: bool
) -> Iterator[Violation]:
    if len(rows) > 1:
        yield Violation("once a key", transcript.subject, f"{transcript.key} created {[row['id'] for row in rows]}")
    elif not rows and transcript.accepted_at is not None and not excused:
        yield Violation("durable", transcript.subject, "it was accepted, and does not exist")
    for row in rows[:1]:
        chunks = [unpacked(chunk) for chunk in fetch_all(connection, CHUNKS, {"job_id": row["job_id"]})]
        yield from check_archive(transcript, chunks, excused=excused)
        if not excused:
            yield from check_state(transcript, row)
        yield from check_usage(transcript, row, chunks)


def check_archive(
    transcript: ClientTranscript, chunks: Sequence[TableRow], *, excused: bool = False
) -> Iterator[Violation]:
    """Check that the archive's chunks are contiguous from 0 and equal the received events, byte by byte."""
    following = 0
    for chunk in chunks:
        if chunk["first_sequence"] != following:
            yield Violation("archive", transcript.subject, f"{chunk['first_sequence']} follows {following - 1}")
            return
        following = chunk["last_sequence"] + 1
    events = archived_events(chunks)
    yield from check_marks(transcript.subject, text_of(_as_received(events)))
    if [event.sequence for event in events] != list(range(following)):
        yield Violation("archive", transcript.subject, f"{len(events)} events have the numbers of {following}")
    if transcript.complete and not excused and (detail := _archive_difference(transcript, events)):
        yield Violation("archive", transcript.subject, f"it differs from the stream: {detail}")


def _archive_difference(transcript: ClientTranscript, archived: Sequence[Event]) -> str:
    """Describe the first archived event that was not received like this; empty when there is none."""
    received = transcript.effective_events()
    expected = complete_events(archived, archived[0]) if archived else []
    if not transcript.exact:
        expected = StandardEvents(transcript.id).convert(expected)
    for stream, archive in zip(received, expected, strict=False):
        equal = stream.data == archive.data if transcript.exact else stream.json() == orjson.loads(archive.data)
        if not equal:
            return f"{stream.sequence}: received {stream.data[:160]!r}, archived {archive.data[:160]!r}"
    return "" if len(received) == len(expected) else f"{len(received)} events received, {len(expected)} archived"


def check_state(transcript: ClientTranscript, row: TableRow) -> Iterator[Violation]:
    """Check that row and stream have the same final state, and that no turn failed or was cancelled unrequested."""
    state = row["state"]
    if transcript.complete and (last := transcript.events[-1].type) not in LAST_EVENTS.get(state, ()):
        yield Violation("ends", transcript.subject, f"its state is {state}, and its stream ended with {last}")
    if state == "cancelled" and not transcript.cancels:
        yield Violation("ends", transcript.subject, "it was cancelled without a request")
    if state == "failed":
        yield Violation("ends", transcript.subject, f"it failed: {row['error']}")


def check_usage(transcript: ClientTranscript, row: TableRow, chunks: Sequence[TableRow]) -> Iterator[Violation]:
    """Check that the billed tokens equal those of the journal, of the archived text and of the response."""
    never_ran = row["state"] == "cancelled" and row["attempt"] == 0
    if never_ran or row["state"] not in LAST_EVENTS:
        if row["output_tokens"] is not None:
            yield Violation("billed", transcript.subject, "it was billed and never ran")
        return
    events = archived_events(chunks)
    words = len(text_of(_as_received(events)).split())
    prompt = next((orjson.loads(event.data)["prompt_tokens"] for event in events if _is(event, ENGINE_STARTED)), 0)
    journalled = sum(chunk["tokens"] for chunk in chunks) - sum(discarded_tokens(event) for event in events)
    usage = row["usage"] or {}
    if any(asks_endpoint(event) for event in events):  # which counts the prompt itself
        prompt = usage.get("input_tokens")
    tokens = {
        "words in the archive": (prompt, words),
        "tokens journalled": (prompt, journalled),
        "response": (usage.get("input_tokens"), usage.get("output_tokens")),
        "bill": (row["input_tokens"], row["output_tokens"]),
    }
    if len(set(tokens.values())) > 1:
        yield Violation("billed", transcript.subject, f"input and output tokens differ: {tokens}")


def _check_conversations(
    connection: Connection, accounts: Sequence[str], rows: Sequence[TableRow]
) -> Iterator[Violation]:
    for pair in fetch_all(connection, OVERLAPPING_TURNS, {"accounts": accounts}):
        yield Violation("one at a time", pair["thread"], f"{pair['later']} started before {pair['earlier']} ended")
    stored = {row["id"]: row["stored"] for row in fetch_all(connection, ITEMS, {"accounts": accounts})}
    for row in rows:
        if row["conversation_id"] is not None and row["state"] in LAST_EVENTS:
            expected = 0 if row["attempt"] == 0 else row["items"]
            if stored[row["id"]] != expected:
                detail = f"{stored[row['id']]} of its {expected} items are in the conversation"
                yield Violation("conversation", row["id"], detail)


def check_order(transcripts: Sequence[ClientTranscript], rows: Sequence[TableRow]) -> Iterator[Violation]:
    """Check that the turns of a conversation ran in the order in which their client posted them.

    A client posts the next one when it knows that the last one was accepted.
    """
    started = {row["key"]: row["started_at"] for row in rows if row["started_at"] is not None}
    by_conversation: dict[str, list[ClientTranscript]] = defaultdict(list)
    for transcript in transcripts:
        if transcript.key in started and transcript.accepted_at is not None and "conversation" in transcript.request:
            by_conversation[transcript.request["conversation"]].append(transcript)
    for conversation, turns in by_conversation.items():
        for earlier, later in pairwise(turns):
            if started[later.key] < started[earlier.key]:
                yield Violation("order", conversation, f"{later.subject} ran before {earlier.subject}")


def _check_bills(
    connection: Connection,
    transcripts: Sequence[ClientTranscript],
    accounts: Sequence[str],
    rows: Sequence[TableRow],
    excused: Collection[str],
) -> Iterator[Violation]:
    for row in fetch_all(connection, SUMS, {"accounts": accounts}):
        detail = f"{row['billed']} tokens in bills, {row['counted']} in monthly sums"
        yield Violation("billed", row["account_id"], detail)
    bills: dict[str, TableRow] = {each["job_id"]: each for each in fetch_all(connection, BILLS, {"accounts": accounts})}
    for turn in rows:
        bills.pop(turn["job_id"], None)
    for transcript in transcripts:
        if transcript.kind == "embeddings" and transcript.ended is not None:
            bill = bills.pop(transcript.job_id, None)
            if transcript.key not in excused:
                yield from check_embeddings(transcript, bill)
    unfinished = [each for each in transcripts if each.ended is None or each.key in excused]
    for job_id in bills.keys() - {each.job_id for each in unfinished}:
        yield Violation("billed", job_id, "it was not requested, or requested once and billed twice")


def check_embeddings(transcript: ClientTranscript, bill: TableRow | None) -> Iterator[Violation]:
    """Check that each text has one vector of length 1, and that the billed tokens are those of the reply."""
    final: Mapping[str, Any] = transcript.final or {}
    if final.get("lengths") != [1.0] * len(transcript.request["input"]):
        yield Violation("embeddings", transcript.subject, f"lengths {final.get('lengths')}")
    if bill is None or bill["input_tokens"] != final["usage"]["prompt_tokens"]:
        yield Violation("billed", transcript.subject, f"the reply has {final.get('usage')}, the bill {bill}")


def unpacked(chunk: TableRow) -> TableRow:
    """Return a chunk of the archive whose events are lines, with the tokens of all of them.

    Those of a packed one lack what an answer that was begun again has discarded.
    """
    if chunk["packed"] is None:
        return chunk
    events = unpack(chunk["packed"])
    tokens = chunk["tokens"] + sum(map(discarded_tokens, events))
    return {**chunk, "events": to_lines(events).decode(), "tokens": tokens}


def archived_events(chunks: Sequence[TableRow]) -> list[Event]:
    """Return the events of an archive."""
    return [event for chunk in chunks for event in from_lines(chunk["first_sequence"], chunk["events"].encode())]


def _as_received(events: Sequence[Event]) -> list[ReceivedEvent]:
    return [ReceivedEvent(0.0, event.sequence, event.type.decode(), event.data) for event in events]


def _is(event: Event, type_: str) -> bool:
    return event.type == type_.encode()


def asks_endpoint(event: Event) -> bool:
    """Return whether an endpoint generates from an event on."""
    return event.type.startswith(b"sangha:engine.") and bool(orjson.loads(event.data).get("endpoint"))


def discarded_tokens(event: Event) -> int:
    """Return how many tokens an event discards."""
    return int(orjson.loads(event.data)["discarded_tokens"]) if _is(event, ANSWER_RESTARTED) else 0
