"""Rules about batches: each line has one answer or one error, in order, and one bill; nothing else is left."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bench.chaos.transcripts import BatchTranscript
from bench.chaos.violations import Violation
from models.platform.database import Connection, fetch_all, fetch_one

#: The codes of lines that a cancelled batch did not run to their end.
CANCELLED = "batch_cancelled"

# What a batch has left, and the events that say how it ended.
LEFT = """
SELECT (SELECT count(*) FROM batch_lines WHERE batch_id = %(id)s)::int AS lines,
       (SELECT count(*) FROM all_jobs WHERE arguments ->> 'of_batch' = %(id)s)::int AS jobs,
       (SELECT array_agg(event_type) FROM account_events
        WHERE account_id = %(account_id)s AND data ->> 'id' = %(id)s) AS events
"""

BILLS = "SELECT count(*)::int AS count FROM usage_records WHERE account_id = %(account_id)s"

UNKNOWN = "SELECT id FROM batches WHERE account_id = ANY(%(accounts)s) AND id <> ALL(%(ids)s)"


def check(
    connection: Connection, transcripts: Sequence[BatchTranscript], excused: Collection[str] = ()
) -> Iterator[Violation]:
    """Check the batches, and the bills of their accounts."""
    for transcript in transcripts:
        if transcript.ended is not None and transcript.key not in excused:
            yield from check_received(transcript)
            yield from _check_tables(connection, transcript)
    accounts = sorted({transcript.account for transcript in transcripts})
    if any(each.ended is None or each.key in excused for each in transcripts):
        return
    ids = [transcript.id for transcript in transcripts]
    for row in fetch_all(connection, UNKNOWN, {"accounts": accounts, "ids": ids}):
        yield Violation("once a key", row["id"], "no client has created this batch")
    for account in accounts:
        yield from _check_bills(connection, account, [each for each in transcripts if each.account == account])


def check_received(transcript: BatchTranscript) -> Iterator[Violation]:
    """Check the object and the files of a batch."""
    final: Mapping[str, Any] = transcript.final or {}
    expected = ("completed", "cancelled") if transcript.cancels else ("completed",)
    if final.get("status") not in expected:
        yield Violation("ends", transcript.subject, f"its status is {final.get('status')}: {final.get('errors')}")
        return
    output, errors = _ids(transcript.output), _ids(transcript.errors)
    if sorted([*output, *errors]) != sorted(transcript.lines):
        yield Violation("each line once", transcript.subject, f"{len(transcript.lines)} lines, {output}, {errors}")
    if not _is_ordered(output, transcript.lines) or not _is_ordered(errors, transcript.lines):
        yield Violation("order", transcript.subject, f"{output}, {errors}")
    counts = {"total": len(transcript.lines), "completed": len(output), "failed": len(errors)}
    if final["request_counts"] != counts:
        yield Violation("batch counts", transcript.subject, f"{final['request_counts']}, and the files {counts}")
    for line in transcript.output:
        yield from _check_answer(transcript, line)
    for line in transcript.errors:
        if (line["error"] or {}).get("code") != CANCELLED or final["status"] != "cancelled":
            yield Violation("ends", transcript.subject, f"a line failed: {line}")


def _check_answer(transcript: BatchTranscript, line: Mapping[str, Any]) -> Iterator[Violation]:
    """Check that an answer is whole: it has as many words as tokens were billed for it."""
    response = line["response"]["body"]
    words = sum(len(part["text"].split()) for item in response["output"] for part in item.get("content", ()))
    tokens = (response["usage"] or {}).get("output_tokens")
    if response["status"] not in ("completed", "incomplete") or not words or words != tokens:
        yield Violation("whole answers", transcript.subject, f"{words} words, {tokens} tokens: {line}")


def _ids(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(line["custom_id"]) for line in lines]


def _is_ordered(ids: Sequence[str], lines: Sequence[str]) -> bool:
    places = {line: place for place, line in enumerate(lines)}
    found = [places.get(each, -1) for each in ids]
    return found == sorted(found)


def _check_tables(connection: Connection, transcript: BatchTranscript) -> Iterator[Violation]:
    row = fetch_one(connection, LEFT, {"id": transcript.id, "account_id": transcript.account})
    assert row is not None
    if row["lines"] or row["jobs"]:
        yield Violation("batch leftovers", transcript.subject, f"{row['lines']} lines and {row['jobs']} jobs are left")
    status = (transcript.final or {}).get("status")
    if row["events"] != [f"batch.{status}"]:
        yield Violation("batch events", transcript.subject, f"its events are {row['events']}, its status {status}")


def _check_bills(connection: Connection, account: str, transcripts: Sequence[BatchTranscript]) -> Iterator[Violation]:
    """Check that each answered line has one bill. A line that was cancelled while it ran has one, too."""
    row = fetch_one(connection, BILLS, {"account_id": account})
    assert row is not None
    answered = sum(len(transcript.output) for transcript in transcripts)
    cancelled = sum(len(transcript.errors) for transcript in transcripts)
    if not answered <= row["count"] <= answered + cancelled:
        detail = f"{row['count']} bills, {answered} answers, {cancelled} cancelled lines"
        yield Violation("billed", account, detail)
