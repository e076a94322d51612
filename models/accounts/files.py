"""The files of accounts: a row each, and the content in the object store."""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one

#: The purpose of a file that only its job reads.
IMPORT = "import"


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


def expire(connection: Connection, file_id: str, account_id: str) -> None:
    """Let a file expire now: it can no longer be read, and maintenance deletes it."""
    connection.execute(
        "UPDATE files SET expires_at = now() WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": file_id, "account_id": account_id},
    )


EXPIRED = "SELECT id, account_id, object_key FROM files WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s"


def expired(connection: Connection, limit: int) -> list[tuple[str, str, str]]:
    """Return (id, account, object key) of at most `limit` expired files of all accounts."""
    rows = fetch_all(connection, EXPIRED, {"limit": limit})
    return [(row["id"], row["account_id"], row["object_key"]) for row in rows]
