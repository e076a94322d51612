"""Rules about files: what was answered is there, byte for byte, and nothing else is visible."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from bench.chaos.file_clients import GONE, MISSING, OTHER
from bench.chaos.table_rules import TableRow
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from models.accounts import files
from models.platform.database import Connection, fetch_all
from models.platform.errors import NotFound
from models.platform.object_errors import DamagedObject
from models.platform.object_store import ObjectStore
from pipelines.files.content import read_content

VISIBLE = """
SELECT id, account_id, filename FROM files
WHERE account_id = ANY(%(accounts)s) AND purpose = 'user_data' AND (expires_at IS NULL OR expires_at > now())
"""

# An object of a file, or of a part, has an owner.
UNOWNED = """
SELECT object_key FROM file_objects
WHERE account_id = ANY(%(accounts)s) AND file_id IS NULL AND upload_id IS NULL
"""


def check(
    connection: Connection,
    objects: ObjectStore,
    transcripts: Sequence[ClientTranscript],
    accounts: Sequence[str],
    excused: Collection[str] = (),
) -> Iterator[Violation]:
    """Check all files. `excused` are the keys of work whose commits Postgres may have lost."""
    sent = {transcript.key: transcript for transcript in transcripts if transcript.kind == "file"}
    found: dict[str, list[TableRow]] = {}
    for row in fetch_all(connection, VISIBLE, {"accounts": accounts}):
        found.setdefault(row["filename"], []).append(row)
    for key in sorted(found.keys() - sent.keys()):
        yield Violation("files", key, "a file is visible that nobody has sent")
    for transcript in sent.values():
        rows = found.get(transcript.key, [])
        # A failover that has lost a deletion restores the row of a file, but not its content.
        restored = transcript.key in excused and GONE in transcript.statuses
        yield from _check_content(connection, objects, transcript, () if restored else rows)
        if transcript.key not in excused:
            yield from check_answer(transcript, rows)
    for row in fetch_all(connection, UNOWNED, {"accounts": accounts}):
        yield Violation("files", row["object_key"], "an object has neither a file nor an upload")


def check_answer(transcript: ClientTranscript, rows: Sequence[TableRow]) -> Iterator[Violation]:
    """Check that a file exists once if the client knows it, and not after it was deleted."""
    statuses = transcript.statuses
    if MISSING in statuses:
        yield Violation("files", transcript.subject, "it was answered, and its content was not found")
    if len(rows) > 1:
        yield Violation("files", transcript.subject, f"one upload has created {[row['id'] for row in rows]}")
    if GONE in statuses and rows:
        yield Violation("files", transcript.subject, "it was deleted, and is visible")
    if transcript.ended is not None and GONE not in statuses and transcript.id not in {row["id"] for row in rows}:
        yield Violation("durable", transcript.subject, "it was answered, and does not exist")


def _check_content(
    connection: Connection, objects: ObjectStore, transcript: ClientTranscript, rows: Sequence[TableRow]
) -> Iterator[Violation]:
    if OTHER in transcript.statuses:
        yield Violation("files", transcript.subject, "it was read back with other content")
    for row in rows:
        digest = _digest(connection, objects, row)
        if digest != transcript.request["sha256"]:
            yield Violation("files", transcript.subject, f"{row['id']} has other content, or none: {digest}")


def _digest(connection: Connection, objects: ObjectStore, row: Mapping[str, str]) -> str | None:
    """Return the digest of a file's content; None if a part of it is missing or damaged."""
    file = files.read_any(connection, row["id"], row["account_id"])
    if file is None:
        return None
    digest = hashlib.sha256()
    try:
        for chunk in read_content(objects, file):
            digest.update(chunk)
    except (NotFound, DamagedObject):
        return None
    return digest.hexdigest()
