"""Export all data of an account as a ZIP of JSON Lines files to the object store.

Rows are read in one snapshot, through a cursor into a temporary file, so that memory use does not depend on their
number. The file's id is that of the job, so that a later attempt finds the file of an earlier one.
"""

import io
import tempfile
import zipfile
from typing import BinaryIO

import orjson

from models.accounts.account_exports import EXPORTS, export_rows
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Connection
from models.platform.json_lines import escape_line_separators
from models.platform.object_store import ObjectStore
from pipelines.files.store import store_file
from pipelines.reporting.stored_result import stored_result

#: Days for which an export can be downloaded.
KEPT_DAYS = 7

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def run(objects: ObjectStore, attempt: Attempt) -> Ending:
    """Write and store the file. Raises Unavailable and the stop reason."""
    file_id = f"file_{attempt.job.id.removeprefix('job_')}"
    numbers = stored_result(attempt, file_id) or _store(objects, attempt, file_id)
    return plain_ending(attempt, "completed", result={"file_id": file_id, **numbers})


def _store(objects: ObjectStore, attempt: Attempt, file_id: str) -> dict[str, int]:
    """Write the archive to a temporary file, and store it. Returns its numbers."""
    with tempfile.TemporaryFile() as file:
        count = _write_archive(attempt, file)
        numbers = {"rows": count, "bytes": file.seek(0, io.SEEK_END)}
        attempt.report_progress(len(EXPORTS), len(EXPORTS), note="storing", resume=numbers)
        file.seek(0)
        store_file(
            attempt.database,
            objects,
            account_id=attempt.job.account_id,
            user_id=None,
            file_id=file_id,
            filename=f"sangha-export-{attempt.job.created_at:%Y-%m-%d}.zip",
            purpose="export",
            content_type="application/zip",
            content=file,
            audience="admins",
            days=KEPT_DAYS,
            job_id=attempt.job.id,
            check=attempt.check_current,
        )
    return numbers


def _write_archive(attempt: Attempt, file: BinaryIO) -> int:
    count = 0
    with attempt.database.transaction() as connection, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        connection.execute(SNAPSHOT)
        for done, name in enumerate(EXPORTS):
            attempt.report_progress(done, len(EXPORTS), note=name)
            count += _write_table(attempt, connection, archive, name)
    return count


def _write_table(attempt: Attempt, connection: Connection, archive: zipfile.ZipFile, name: str) -> int:
    count = 0
    with archive.open(f"{name}.jsonl", "w", force_zip64=True) as member:
        for batch in export_rows(connection, name, attempt.job.account_id):
            attempt.check()
            member.write(b"".join(escape_line_separators(orjson.dumps(row)) + b"\n" for row in batch))
            count += len(batch)
    return count
