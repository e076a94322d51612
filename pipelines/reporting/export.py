"""Export all data of an account as a ZIP of JSON Lines files to the object store.

Rows are read in one snapshot, through a cursor into a temporary file, so that memory use does not depend on their
number. The names of file and object contain the job's id, so that a later attempt replaces the file of an earlier one.
"""

import tempfile
import zipfile
from typing import BinaryIO

import orjson

from models.accounts import account_exports, files
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Connection
from models.platform.json_lines import escape_line_separators
from models.platform.object_store import ObjectStore

#: Days for which an export can be downloaded.
KEPT_DAYS = 7

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def run(objects: ObjectStore, attempt: Attempt) -> Ending:
    """Write the file; the transaction that ends the job records it. Raises Unavailable and the stop reason."""
    suffix = attempt.job.id.removeprefix("job_")
    file_id, key = f"file_{suffix}", f"{attempt.job.account_id}/exports/{suffix}.zip"
    with tempfile.TemporaryFile() as file:
        count = _write_archive(attempt, file)
        file.seek(0)
        size = objects.put(key, file)
    result = {"file_id": file_id, "rows": count, "bytes": size}

    def record(connection: Connection) -> None:
        files.insert(
            connection,
            file_id,
            attempt.job.account_id,
            job_id=attempt.job.id,
            filename=f"sangha-export-{attempt.job.created_at:%Y-%m-%d}.zip",
            purpose="export",
            content_type="application/zip",
            size=size,
            object_key=key,
            days=KEPT_DAYS,
        )

    ending = plain_ending(attempt, "completed", result=result)
    return Ending(ending.state, ending.events, ending.result, record=record)


def _write_archive(attempt: Attempt, file: BinaryIO) -> int:
    count = 0
    with attempt.database.transaction() as connection, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        connection.execute(SNAPSHOT)
        for done, name in enumerate(account_exports.EXPORTS):
            attempt.report_progress(done, len(account_exports.EXPORTS), note=name)
            count += _write_table(attempt, connection, archive, name)
    return count


def _write_table(attempt: Attempt, connection: Connection, archive: zipfile.ZipFile, name: str) -> int:
    count = 0
    with archive.open(f"{name}.jsonl", "w", force_zip64=True) as member:
        for batch in account_exports.export_rows(connection, name, attempt.job.account_id):
            attempt.check()
            member.write(b"".join(escape_line_separators(orjson.dumps(row)) + b"\n" for row in batch))
            count += len(batch)
    return count
