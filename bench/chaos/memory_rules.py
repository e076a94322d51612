"""Rules about memories: each imported memory exists once and can be found, and a meditation's changes add up."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from bench.chaos.memory_clients import MISSING
from bench.chaos.table_rules import TableRow
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from models.memory.postings import ENTRY
from models.platform.database import Connection, fetch_all

IMPORTED = """
SELECT metadata ->> 'chaos' AS key, text, closed_at IS NOT NULL AS closed
FROM memories WHERE account_id = ANY(%(accounts)s) AND metadata ? 'chaos'
"""

# Memories without a vector, or whose vector has another `live` than they have.
VECTORS = """
SELECT memories.id, memory_vectors.ordinal IS NULL AS missing FROM memories
LEFT JOIN memory_vectors USING (space_id, ordinal)
WHERE account_id = ANY(%(accounts)s)
  AND (memory_vectors.ordinal IS NULL OR memory_vectors.live <> (memories.closed_at IS NULL))
"""

# The counts of each space, and those of its memories.
SPACES = """
SELECT memory_spaces.id, memory_spaces.live, memory_spaces.next_ordinal,
       count(memories.id) FILTER (WHERE memories.closed_at IS NULL) AS counted, max(memories.ordinal) AS last,
       (coalesce(sum(cardinality(terms)) FILTER (WHERE memories.closed_at IS NULL), 0)
        + (SELECT coalesce(sum(cardinality(memory_passages.terms)), 0) FROM memory_passages
           WHERE memory_passages.space_id = memory_spaces.id))::bigint AS terms,
       (SELECT coalesce(sum(octet_length(entries)), 0) FROM memory_postings
        WHERE memory_postings.space_id = memory_spaces.id)::bigint AS bytes
FROM memory_spaces LEFT JOIN memories ON memories.space_id = memory_spaces.id
WHERE memory_spaces.account_id = ANY(%(accounts)s) GROUP BY memory_spaces.id
"""

# The memories of each turn: the question, and a complete answer.
# An answer is not remembered if a memory that it cites does not exist any more.
TURNS = """
SELECT responses.id, state, unremembered, request -> 'memory' ->> 'remember' AS remember,
       count(memories.id) FILTER (WHERE speaker = 'user') AS questions,
       count(memories.id) FILTER (WHERE speaker = 'assistant') AS answers,
       EXISTS (SELECT FROM jsonb_array_elements(responses.recalled) AS source
               WHERE source ->> 'id' NOT IN (SELECT id FROM memories)) AS cites_missing
FROM responses JOIN all_jobs AS jobs ON jobs.id = job_id LEFT JOIN memories ON memories.response_id = responses.id
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


def check(
    connection: Connection,
    transcripts: Sequence[ClientTranscript],
    accounts: Sequence[str],
    excused: Collection[str] = (),
) -> Iterator[Violation]:
    """Check memories and meditations. `excused` are the keys of work whose commits Postgres may have lost."""
    transcripts = [each for each in transcripts if each.key not in excused]
    imported: dict[str, list[TableRow]] = {}
    for row in fetch_all(connection, IMPORTED, {"accounts": accounts}):
        imported.setdefault(row["key"], []).append(row)
    for transcript in transcripts:
        if transcript.kind == "memories":
            yield from check_import(transcript, imported.get(transcript.key, []))
    for row in fetch_all(connection, VECTORS, {"accounts": accounts}):
        detail = "its vector is missing" if row["missing"] else "its vector has another `live` than it has"
        yield Violation("memories", row["id"], detail)
    for row in fetch_all(connection, SPACES, {"accounts": accounts}):
        yield from check_space(row)
    for row in fetch_all(connection, TURNS, {"accounts": accounts}):
        yield from check_remembered(row)
    meditations = {row["id"]: row for row in fetch_all(connection, MEDITATIONS, {"accounts": accounts})}
    for transcript in transcripts:
        if transcript.kind == "meditation" and transcript.id and transcript.id not in meditations:
            yield Violation("meditation", transcript.subject, "it was accepted, and does not exist")
        elif transcript.kind == "meditation" and transcript.id:
            yield from check_meditation_reply(transcript, meditations[transcript.id])
    for row in meditations.values():
        yield from check_meditation(row)


def check_import(transcript: ClientTranscript, rows: Sequence[TableRow]) -> Iterator[Violation]:
    """Check that each memory of an import exists once, and that a search by its text finds it unless it was closed."""
    counts = Counter(row["text"] for row in rows)
    texts = [memory["text"] for memory in transcript.request["memories"]]
    if more := {text: count for text, count in counts.items() if count > 1 or text not in set(texts)}:
        yield Violation("memories", transcript.subject, f"stored more than once, or never imported: {more}")
    if transcript.ended is not None and (missing := [text for text in texts if text not in counts]):
        yield Violation("memories", transcript.subject, f"{len(missing)} of {len(texts)} are missing: {missing[:3]}")
    closed = {row["text"] for row in rows if row["closed"]}
    for status in transcript.statuses:
        if status.startswith(MISSING) and (text := status.removeprefix(MISSING)) not in closed:
            yield Violation("search", transcript.subject, f"a search for its text did not find {text!r}")


def check_space(row: TableRow) -> Iterator[Violation]:
    """Check the counts of a space, and the size of its inverted index, against its memories."""
    if row["live"] != row["counted"] or (row["last"] is not None and row["next_ordinal"] <= row["last"]):
        detail = f"{row['live']} live by its row, {row['counted']} by its memories; next {row['next_ordinal']}"
        yield Violation("memories", f"space {row['id']}", detail)
    if row["terms"] * ENTRY.itemsize != row["bytes"]:
        detail = f"{row['terms']} terms of its memories, {row['bytes'] // ENTRY.itemsize} entries in its index"
        yield Violation("memories", f"space {row['id']}", detail)


def check_remembered(row: TableRow) -> Iterator[Violation]:
    """Check that a turn is remembered once, unless it opted out: its question, and its answer if that is complete."""
    if row["unremembered"]:
        yield Violation("remembered", row["id"], f"it has ended ({row['state']}), and is not remembered yet")
        return
    answered = row["state"] == "completed" and not row["cites_missing"]
    expected = (0, 0) if row["remember"] == "false" else (1, int(answered))
    if (row["questions"], row["answers"]) != expected:
        detail = f"{row['questions']} questions and {row['answers']} answers, expected {expected}, {row['state']}"
        yield Violation("remembered", row["id"], detail)


def check_meditation_reply(transcript: ClientTranscript, row: TableRow) -> Iterator[Violation]:
    """Check that the client has read the outcome and the changes that are in the tables."""
    final = transcript.final or {}
    actions = [change["action"] for change in final.get("changes", ())]
    if transcript.ended is not None and (final.get("outcome"), actions) != (row["outcome"], row["actions"] or []):
        detail = f"read {final.get('outcome')} and {Counter(actions)}, stored {row['outcome']} and {row['actions']}"
        yield Violation("meditation", transcript.subject, detail)


def check_meditation(row: TableRow) -> Iterator[Violation]:
    """Check that a meditation has an outcome, and as many changes as its report says; none unless it was applied."""
    if row["outcome"] in (None, "failed"):
        yield Violation("meditation", row["id"], f"its outcome is {row['outcome']}")
    actions, reasons, report = row["actions"] or [], row["reasons"] or [], row["report"]
    if row["last"] + 1 != len(actions):
        yield Violation("meditation", row["id"], f"{len(actions)} changes, the last of which is number {row['last']}")
    changes = {
        "merged": reasons.count("repeats"),
        "contradicted": reasons.count("contradicted"),
        "replaced": reasons.count("replaced"),
        "written": actions.count("created"),
        "weighed": actions.count("weighed"),
    }
    applied = row["outcome"] == "applied"
    reported = {name: report.get(name) if applied else 0 for name in changes}
    if changes != reported:
        yield Violation("meditation", row["id"], f"{row['outcome']}: its changes are {changes}, reported {reported}")
