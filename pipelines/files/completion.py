"""Turn an upload into a file, and cancel one."""

from collections.abc import Callable, Sequence

from models.accounts import files, uploads
from models.accounts.files import File
from models.accounts.uploads import NewFile
from models.delivery import events
from models.jobs.jobs import lock_unfinished
from models.platform.database import Connection, Database
from models.platform.errors import Cancelled, NotAuthenticated, NotFound
from models.platform.object_store import ObjectStore
from pipelines.files.writer import no_longer_pending

#: Left-over objects that are deleted at a time.
BATCH = 500


def complete_upload(
    database: Database,
    *,
    upload_id: str,
    account_id: str,
    part_ids: Sequence[str],
    file_id: str,
    file: NewFile,
    job_id: str | None = None,
    check: Callable[[Connection], None] | None = None,
) -> File:
    """Turn an upload into a file with the content of the parts, in one transaction. Returns the file.

    `check` may raise an error in it, once the job is locked.
    An existing file with the id is returned as it is; the upload stays. Raises Conflict if the upload is no longer
    pending, NotAuthenticated if its user left the account, and Cancelled if its job has ended.
    """
    with database.transaction() as connection:
        upload = uploads.lock(connection, upload_id, account_id)
        if upload is None or upload.status != "pending":
            raise no_longer_pending()
        _lock_owner(connection, account_id, upload.user_id, job_id)
        if check is not None:
            check(connection)
        sizes = uploads.part_sizes(connection, upload_id, account_id)
        objects = uploads.part_objects(connection, upload_id, account_id, part_ids)
        size = sum(sizes[part_id] for part_id in part_ids)
        if uploads.complete(connection, upload, file_id, file, size=size, objects=objects, job_id=job_id):
            events.record(connection, account_id, "file.created", {"id": file_id, "purpose": file.purpose})
        completed = files.read_any(connection, file_id, account_id)
    if completed is None:
        raise NotFound("The file was deleted.")
    return completed


def _lock_owner(connection: Connection, account_id: str, user_id: str | None, job_id: str | None) -> None:
    if job_id is not None and not lock_unfinished(connection, job_id):
        raise Cancelled(f"job {job_id} has ended")
    if not uploads.lock_owner(connection, account_id, user_id):
        raise NotAuthenticated("The account or the user has been deleted.")


def cancel_upload(database: Database, objects: ObjectStore, upload_id: str, account_id: str) -> None:
    """Cancel an upload if it is pending, and delete what it left over. Raises Unavailable: it is deleted later."""
    with database.connection() as connection:
        uploads.cancel(connection, upload_id, account_id)
    while delete_left_over(database, objects, upload_id=upload_id):
        pass


def delete_left_over(database: Database, objects: ObjectStore, *, upload_id: str | None = None) -> int:
    """Delete a batch of objects that belong to no file and no pending upload. Returns how many."""
    with database.connection() as connection:
        keys = uploads.left_over(connection, BATCH, upload_id=upload_id)
    objects.delete(keys)
    with database.connection() as connection:
        uploads.delete_objects(connection, keys)
    return len(keys)
