"""Rules about memories: what was brought is there once and can be found, and a meditation's changes add up."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from models.memory.postings import ENTRY
from models.platform.database import Connection, fetch_all

Row = Mapping[str, Any]

BROUGHT = """
SELECT metadata ->> 'chaos' AS key, text, closed_at IS NOT NULL AS closed
FROM memories WHERE account_id = ANY(%(accounts)s) AND metadata ? 'chaos'
"""

# A memory without its vector, or one whose vector says otherwise whether it is live.
VECTORS = """
SELECT memories.id, memory_vectors.ordinal IS NULL AS missing FROM memories
LEFT JOIN memory_vectors USING (space_id, ordinal)
WHERE account_id = ANY(%(accounts)s)
  AND (memory_vectors.ordinal IS NULL OR memory_vectors.live <> (memories.closed_at IS NULL))
"""

# Spaces whose counts are not those of their memories.
SPACES = """
SELECT memory_spaces.id, memory_spaces.live, memory_spaces.next_ordinal,
       count(memories.id) FILTER (WHERE memories.closed_at IS NULL) AS counted, max(memories.ordinal) AS last,
       coalesce(sum(cardinality(terms)) FILTER (WHERE memories.closed_at IS NULL), 0)::bigint AS terms,
       (SELECT coalesce(sum(octet_length(entries)), 0) FROM memory_postings
        WHERE memory_postings.space_id = memory_spaces.id)::bigint AS bytes
FROM memory_spaces LEFT JOIN memories ON memories.space_id = memory_spaces.id
WHERE memory_spaces.account_id = ANY(%(accounts)s) GROUP BY memory_spaces.id
"""

# What is remembered of turns that are to be: the question, and an answer that was given to its end.
TURNS = """
SELECT responses.id, state, unremembered, request -> 'memory' ->> 'remember' AS remember,
       count(memories.id) FILTER (WHERE speaker = 'user') AS asked,
       count(memories.id) FILTER (WHERE speaker = 'assistant') AS answered
FROM responses JOIN jobs ON jobs.id = job_id LEFT JOIN memories ON memories.response_id = responses.id
WHERE responses.account_id = ANY(%(accounts)s) GROUP BY responses.id, state
"""

MEDITATIONS = """
SELECT meditations.id, outcome, report,
       array_agg(action ORDER BY position) FILTER (WHERE action IS NOT NULL) AS actions,
       array_agg(reason ORDER BY position) FILTER (WHERE action IS NOT NULL) AS reasons,
       coalesce(max(position), -1) AS last
FROM meditations LEFT JOIN meditation_changes ON meditation_id = meditations.id
WHERE account_id = ANY(%(accounts)s) GROUP BY meditations.id
"""


def judged(connection: Connection, transcripts: Sequence[Transcript], accounts: Sequence[str]) -> Iterator[Violation]:
    """What is wrong with memories and meditations."""
    rows = fetch_all(connection, BROUGHT, {"accounts": accounts})
    there: dict[str, list[Row]] = {}
    for row in rows:
        there.setdefault(row["key"], []).append(row)
    for transcript in transcripts:
        if transcript.kind == "memories":
            yield from brought(transcript, there.get(transcript.key, []))
    for row in fetch_all(connection, VECTORS, {"accounts": accounts}):
        yield Violation(
            "memories", row["id"], "its vector is missing" if row["missing"] else "its vector is out of step"
        )
    for row in fetch_all(connection, SPACES, {"accounts": accounts}):
        yield from counted(row)
    for row in fetch_all(connection, TURNS, {"accounts": accounts}):
        yield from remembered(row)
    found = {row["id"]: row for row in fetch_all(connection, MEDITATIONS, {"accounts": accounts})}
    for transcript in transcripts:
        if transcript.kind == "meditation" and transcript.id and transcript.id not in found:
            yield Violation("meditation", transcript.subject, "it was accepted, and is gone")
        elif transcript.kind == "meditation" and transcript.id:
            yield from told(transcript, found[transcript.id])
    for row in found.values():
        yield from added_up(row)


def brought(transcript: Transcript, rows: Sequence[Row]) -> Iterator[Violation]:
    """Each memory of an import is there once, in its words; and the one that was searched for was found."""
    counts = Counter(row["text"] for row in rows)
    wanted = [memory["text"] for memory in transcript.asked["memories"]]
    if more := {text: count for text, count in counts.items() if count > 1 or text not in set(wanted)}:
        yield Violation("memories", transcript.subject, f"there more than once, or never brought: {more}")
    if transcript.ended is not None and (missing := [text for text in wanted if text not in counts]):
        yield Violation("memories", transcript.subject, f"{len(missing)} of {len(wanted)} are missing: {missing[:3]}")
    closed = {row["text"] for row in rows if row["closed"]}
    for status in transcript.statuses:
        if status.startswith("missing ") and status.removeprefix("missing ") not in closed:
            yield Violation("found", transcript.subject, f"a search for its own words does not find {status[8:]!r}")


def counted(row: Row) -> Iterator[Violation]:
    """A space's counts and its inverted index are those of its memories."""
    if row["live"] != row["counted"] or (row["last"] is not None and row["next_ordinal"] <= row["last"]):
        detail = f"{row['live']} live by its row, {row['counted']} by its memories; next {row['next_ordinal']}"
        yield Violation("memories", f"space {row['id']}", detail)
    if row["terms"] * ENTRY.itemsize != row["bytes"]:
        detail = f"{row['terms']} terms of its memories, {row['bytes'] // ENTRY.itemsize} entries in its index"
        yield Violation("memories", f"space {row['id']}", detail)


def remembered(row: Row) -> Iterator[Violation]:
    """A turn that is to be remembered is, once: what was asked, and what was answered to the end."""
    if row["unremembered"]:
        yield Violation("remembered", row["id"], f"it has ended ({row['state']}), and is still to be remembered")
        return
    wanted = (0, 0) if row["remember"] == "false" else (1, int(row["state"] == "completed"))
    if (row["asked"], row["answered"]) != wanted:
        detail = f"{row['asked']} questions and {row['answered']} answers in place of {wanted}, {row['state']}"
        yield Violation("remembered", row["id"], detail)


def told(transcript: Transcript, row: Row) -> Iterator[Violation]:
    """What a meditation's client was told is what the tables hold."""
    final = transcript.final or {}
    actions = [change["action"] for change in final.get("changes", ())]
    if transcript.ended is not None and (final.get("outcome"), actions) != (row["outcome"], row["actions"] or []):
        detail = f"told {final.get('outcome')} and {Counter(actions)}, is {row['outcome']} and {row['actions']}"
        yield Violation("meditation", transcript.subject, detail)


def added_up(row: Row) -> Iterator[Violation]:
    """A meditation has an outcome, and as many changes as its report says; without `applied` none."""
    if row["outcome"] in (None, "failed"):
        yield Violation("meditation", row["id"], f"its outcome is {row['outcome']}")
    actions, reasons, report = row["actions"] or [], row["reasons"] or [], row["report"]
    if row["last"] + 1 != len(actions):
        yield Violation("meditation", row["id"], f"{len(actions)} changes, the last of which is number {row['last']}")
    made = {
        "merged": reasons.count("repeats"),
        "contradicted": reasons.count("contradicted"),
        "replaced": reasons.count("replaced"),
        "written": actions.count("created"),
        "weighed": actions.count("weighed"),
    }
    applied = row["outcome"] == "applied"
    wanted = {name: report.get(name) if applied else 0 for name in made}
    if made != wanted:
        yield Violation("meditation", row["id"], f"{row['outcome']}: it changed {made}, and tells of {wanted}")
