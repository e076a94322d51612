"""The files of accounts: a row each, and the content in the object store."""

from dataclasses import dataclass
from datetime import datetime

from models.accounts.plans import Limits
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import LimitExceeded, TooLarge

#: The purpose of a file that only its job reads.
IMPORT = "import"

#: Seconds after which to retry when there is no room: an import may have ended by then.
STORAGE_RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class File:
    """A row of `files`."""

    id: str
    account_id: str
    filename: str
    purpose: str
    content_type: str
    bytes: int
    object_key: str
    created_at: datetime
    expires_at: datetime | None


INSERT = """
INSERT INTO files (id, account_id, job_id, filename, purpose, content_type, bytes, object_key, expires_at)
VALUES (%(id)s, %(account_id)s, %(job_id)s, %(filename)s, %(purpose)s, %(content_type)s, %(bytes)s, %(object_key)s,
        now() + make_interval(days => %(days)s))
ON CONFLICT (id) DO NOTHING
"""


def insert(
    connection: Connection,
    file_id: str,
    account_id: str,
    *,
    job_id: str,
    filename: str,
    purpose: str,
    content_type: str,
    size: int,
    object_key: str,
    days: int,
) -> None:
    """Insert a file whose content is stored already. It expires after `days`."""
    connection.execute(
        INSERT,
        {
            "id": file_id,
            "account_id": account_id,
            "job_id": job_id,
            "filename": filename,
            "purpose": purpose,
            "content_type": content_type,
            "bytes": size,
            "object_key": object_key,
            "days": days,
        },
    )


# An export contains what only admins may see, such as the audit log. An import is read only by its job.
READ = """
SELECT id, account_id, filename, purpose, content_type, bytes, object_key, created_at, expires_at
FROM files
WHERE id = %(id)s AND account_id = %(account_id)s AND (expires_at IS NULL OR expires_at > now())
  AND (%(exports)s OR purpose <> 'export') AND purpose <> 'import'
"""


def read(connection: Connection, file_id: str, account_id: str, *, exports: bool) -> File | None:
    """Return the file if it belongs to the account and has not expired; an export only if `exports` may be read."""
    row = fetch_one(connection, READ, {"id": file_id, "account_id": account_id, "exports": exports})
    return File(**row) if row else None


LIST = """
SELECT id, account_id, filename, purpose, content_type, bytes, object_key, created_at, expires_at
FROM files
WHERE account_id = %(account_id)s AND (expires_at IS NULL OR expires_at > now())
  AND (%(exports)s OR purpose <> 'export') AND purpose <> 'import'
  AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s) AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def page(
    connection: Connection,
    account_id: str,
    *,
    exports: bool,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[File]:
    """Return at most `limit` files of an account, newest first, older than the file `after`."""
    names = {"account_id": account_id, "exports": exports, "purpose": purpose, "after": after, "limit": limit}
    return [File(**row) for row in fetch_all(connection, LIST, names)]


def delete(connection: Connection, file_id: str, account_id: str) -> None:
    """Delete a file's row. The caller has deleted its content before."""
    connection.execute(
        "DELETE FROM files WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": file_id, "account_id": account_id},
    )


# The account is locked, so that two requests cannot use the same bytes.
LOCK = "SELECT FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE"

STORED = """
SELECT coalesce(sum(bytes), 0)::bigint AS bytes FROM files
WHERE account_id = %(account_id)s AND (%(without)s::text IS NULL OR id <> %(without)s)
"""


def stored_bytes(connection: Connection, account_id: str, *, without: str | None = None) -> int:
    """Return the bytes of the account's files, expired ones included, without one of them."""
    row = fetch_one(connection, STORED, {"account_id": account_id, "without": without})
    return int(row["bytes"]) if row else 0


def check_stored_bytes(
    connection: Connection, account_id: str, limits: Limits, size: int = 0, *, file_id: str | None = None
) -> None:
    """Check that the account may keep `size` more bytes, in the transaction that inserts the file.

    file_id  the file, which a repeated request has inserted before

    Raises TooLarge if the file alone exceeds the limit, and LimitExceeded if there is no room for it now. Without a
    size, there is no room once the limit is reached.
    """
    if (limit := limits.stored_bytes) is None:
        return
    if size > limit:
        raise TooLarge(
            f"The file has {size} bytes. The account may keep {limit} bytes of files.", code="file_too_large"
        )
    connection.execute(LOCK, {"account_id": account_id})
    stored = stored_bytes(connection, account_id, without=file_id)
    if stored + size > limit or stored >= limit:
        message = f"The account keeps {stored} of at most {limit} bytes of files. Delete exports, or wait for imports."
        raise LimitExceeded(message, code="storage_full", retry_after=STORAGE_RETRY_AFTER)


# Of jobs that have ended, or that were never inserted. A dead job keeps its file, since an operator may replay it.
EXPIRE_ENDED_IMPORTS = """
UPDATE files SET expires_at = now()
FROM files AS imported LEFT JOIN jobs ON jobs.id = imported.job_id
WHERE files.id = imported.id AND imported.purpose = 'import' AND imported.expires_at > now()
  AND (jobs.state IN ('completed', 'failed', 'cancelled')
       OR jobs.id IS NULL AND imported.created_at < now() - interval '1 hour')
"""

ANY_EXPIRED = "SELECT true FROM files WHERE expires_at <= now() LIMIT 1"


def expire_ended_imports(connection: Connection) -> bool:
    """Let the imported files of all accounts expire with their jobs. Returns whether any file has expired."""
    connection.execute(EXPIRE_ENDED_IMPORTS)
    return fetch_one(connection, ANY_EXPIRED) is not None


EXPIRED = "SELECT id, account_id, object_key FROM files WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s"


def expired(connection: Connection, limit: int) -> list[tuple[str, str, str]]:
    """Return (id, account, object key) of at most `limit` expired files of all accounts."""
    rows = fetch_all(connection, EXPIRED, {"limit": limit})
    return [(row["id"], row["account_id"], row["object_key"]) for row in rows]
