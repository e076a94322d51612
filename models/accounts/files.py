"""Files: what an account was given or has made, as a row; the bytes are in the object store."""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one

#: The purpose of a file that only a job reads.
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
    """Note a file whose bytes are stored already; it is kept for `days`."""
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


# An export holds what only admins see: the audit log, and what was offered to whom. An import is one member's own, and
# is nobody's to read: the job that it is for has it.
READ = """
SELECT id, account_id, filename, purpose, content_type, bytes, object_key, created_at, expires_at
FROM files
WHERE id = %(id)s AND account_id = %(account_id)s AND (expires_at IS NULL OR expires_at > now())
  AND (%(exports)s OR purpose <> 'export') AND purpose <> 'import'
"""


def read(connection: Connection, file_id: str, account_id: str, *, exports: bool) -> File | None:
    """The file, if the account has it and it has not expired; an export for those only who may see `exports`."""
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
    """At most `limit` files of an account, newest first, behind the file `after`."""
    names = {"account_id": account_id, "exports": exports, "purpose": purpose, "after": after, "limit": limit}
    return [File(**row) for row in fetch_all(connection, LIST, names)]


def delete(connection: Connection, file_id: str, account_id: str) -> None:
    """Forget a file; its bytes are the caller's to delete, before."""
    connection.execute(
        "DELETE FROM files WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": file_id, "account_id": account_id},
    )


def expire(connection: Connection, file_id: str, account_id: str) -> None:
    """Let a file's time be over: nobody can read it any more, and maintenance deletes it."""
    connection.execute(
        "UPDATE files SET expires_at = now() WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": file_id, "account_id": account_id},
    )


# Files whose time is over, of all accounts: what maintenance deletes.
EXPIRED = "SELECT id, account_id, object_key FROM files WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s"


def expired(connection: Connection, limit: int) -> list[tuple[str, str, str]]:
    """(id, account, key) of at most `limit` files whose time is over."""
    rows = fetch_all(connection, EXPIRED, {"limit": limit})
    return [(row["id"], row["account_id"], row["object_key"]) for row in rows]
