"""The files of accounts: a row each, and the content in the object store.

A file's content never changes. It is one object or several, which `file_objects` has in order (`models.accounts.
uploads`); a file of an earlier version, or of an import, has its one object in its own row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from models.accounts.accounts import Caller, Role, Scope
from models.accounts.plans import Limits
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import LimitExceeded, TooLarge

#: The purpose of a file that only its job reads.
IMPORT = "import"

#: Seconds after which to retry when there is no room: an import may have ended by then.
STORAGE_RETRY_AFTER = 60.0


#: Who may read a file: all members of the account; its admins; its user and the admins.
Audience = Literal["account", "admins", "user"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a file's content."""

    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class File:
    """A row of `files`. `objects` are those of its content, in order."""

    id: str
    account_id: str
    user_id: str | None
    filename: str
    purpose: str
    content_type: str
    audience: Audience
    bytes: int
    objects: tuple[StoredObject, ...]
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class FileAccess:
    """Who reads files: a user of an account, and whether as an admin."""

    account_id: str
    user_id: str | None
    admin: bool

    @classmethod
    def of(cls, caller: Caller) -> "FileAccess":
        """Return the access of a caller: as an admin with a login, or with a key of the scope `admin`."""
        admin = caller.role.covers(Role.ADMIN) and Scope.ADMIN in caller.scopes
        return cls(caller.account_id, caller.user_id, admin)

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters of READABLE."""
        return {"account_id": self.account_id, "reader_id": self.user_id, "admin": self.admin}


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


# An export of the previous version contains what only admins may see, such as the audit log.
AUDIENCE = "coalesce(audience, CASE purpose WHEN 'export' THEN 'admins' ELSE 'account' END)"

# An import is read only by its job.
READABLE = f"""
files.account_id = %(account_id)s AND (files.expires_at IS NULL OR files.expires_at > now())
  AND purpose <> 'import'
  AND (%(admin)s OR {AUDIENCE} = 'account' OR {AUDIENCE} = 'user' AND files.user_id = %(reader_id)s)
"""

COLUMNS = f"""
files.id, files.account_id, files.user_id, filename, purpose, content_type, {AUDIENCE} AS audience, files.bytes,
files.created_at, files.expires_at, coalesce(content.objects, jsonb_build_array(jsonb_build_array(object_key, bytes)))
  AS objects
FROM files LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(file_objects.object_key, file_objects.bytes) ORDER BY position) AS objects
    FROM file_objects WHERE file_objects.file_id = files.id) AS content ON true
"""

READ = f"SELECT {COLUMNS} WHERE files.id = %(id)s AND {READABLE}"


def read(connection: Connection, file_id: str, access: FileAccess) -> File | None:
    """Return the file if it has not expired and may be read."""
    row = fetch_one(connection, READ, {**access.parameters, "id": file_id})
    return _file(row) if row else None


READ_SEVERAL = f"SELECT {COLUMNS} WHERE files.id = ANY(%(ids)s) AND {READABLE}"


def read_several(connection: Connection, ids: Sequence[str], access: FileAccess) -> dict[str, File]:
    """Return, by id, those of the files that have not expired and may be read."""
    rows = fetch_all(connection, READ_SEVERAL, {**access.parameters, "ids": list(ids)})
    return {file.id: file for file in map(_file, rows)}


READ_ANY = f"SELECT {COLUMNS} WHERE files.id = %(id)s AND files.account_id = %(account_id)s"


def read_any(connection: Connection, file_id: str, account_id: str) -> File | None:
    """Return a file of the account for a job: whatever its audience, also if it has expired."""
    row = fetch_one(connection, READ_ANY, {"id": file_id, "account_id": account_id})
    return _file(row) if row else None


Order = Literal["asc", "desc"]

PAGE = f"""
SELECT {COLUMNS} WHERE {READABLE}
  AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
  AND (%(after)s::text IS NULL OR files.id {{beyond}} %(after)s)
ORDER BY files.id {{order}} LIMIT %(limit)s
"""

LIST: dict[Order, str] = {
    "asc": PAGE.format(beyond=">", order="ASC"),
    "desc": PAGE.format(beyond="<", order="DESC"),
}


def page(
    connection: Connection,
    access: FileAccess,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[File]:
    """Return at most `limit` files, by default the newest first, behind the file `after`."""
    names = {**access.parameters, "purpose": purpose, "after": after, "limit": limit}
    return [_file(row) for row in fetch_all(connection, LIST[order], names)]


def _file(row: dict[str, Any]) -> File:
    return File(**{**row, "objects": tuple(StoredObject(*stored) for stored in row["objects"])})


EXPIRE = "UPDATE files SET expires_at = now() WHERE id = %(id)s AND account_id = %(account_id)s"


def expire(connection: Connection, file_id: str, account_id: str) -> None:
    """Let a file expire, so that nobody reads it any more; the sweeper deletes what is left of it."""
    connection.execute(EXPIRE, {"id": file_id, "account_id": account_id})


DELETE = (
    """
    DELETE FROM file_objects
    WHERE account_id = %(account_id)s AND (file_id = %(id)s OR upload_id = %(id)s AND file_id IS NULL)
    """,
    "DELETE FROM files WHERE id = %(id)s AND account_id = %(account_id)s",
    "DELETE FROM uploads WHERE id = %(id)s AND account_id = %(account_id)s",
)


def delete(connection: Connection, file_id: str, account_id: str) -> None:
    """Delete the rows of a file or upload. The caller has deleted its content before."""
    for statement in DELETE:
        connection.execute(statement, {"id": file_id, "account_id": account_id})


# The account is locked, so that two requests cannot use the same bytes.
LOCK = "SELECT FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE"

# Of an upload what it has declared, or what its parts have if a repeated one was stored twice.
STORED = """
SELECT (
    SELECT coalesce(sum(bytes), 0)::bigint FROM files
    WHERE account_id = %(account_id)s AND (%(without)s::text IS NULL OR id <> %(without)s)
) + (
    SELECT coalesce(sum(greatest(uploads.bytes, parts.bytes)), 0)::bigint
    FROM uploads LEFT JOIN LATERAL (
        SELECT sum(upload_parts.bytes)::bigint AS bytes FROM upload_parts WHERE upload_id = uploads.id
    ) AS parts ON true
    WHERE uploads.account_id = %(account_id)s AND status = 'pending' AND uploads.expires_at > now()
      AND (%(without)s::text IS NULL OR uploads.id <> %(without)s)
) AS bytes
"""


def stored_bytes(connection: Connection, account_id: str, *, without: str | None = None) -> int:
    """Return the bytes of the account's files, expired ones included, and of its uploads, without one of them."""
    row = fetch_one(connection, STORED, {"account_id": account_id, "without": without})
    return int(row["bytes"]) if row else 0


def check_stored_bytes(
    connection: Connection, account_id: str, limits: Limits, size: int = 0, *, file_id: str | None = None
) -> None:
    """Check that the account may keep `size` more bytes, in the transaction that inserts the file.

    file_id  the file or upload, which has been inserted before

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
        message = f"The account keeps {stored} of at most {limit} bytes of files. Delete files, or wait for imports."
        raise LimitExceeded(message, code="storage_full", retry_after=STORAGE_RETRY_AFTER)


# Of jobs that have ended, or that were never inserted. A dead job keeps its file, since an operator may replay it.
EXPIRE_ENDED_IMPORTS = """
UPDATE files SET expires_at = now()
FROM files AS imported LEFT JOIN jobs ON jobs.id = imported.job_id
WHERE files.id = imported.id AND imported.purpose = 'import' AND imported.expires_at > now()
  AND (jobs.state IN ('completed', 'failed', 'cancelled')
       OR jobs.id IS NULL AND imported.created_at < now() - interval '1 hour')
"""

ANY_EXPIRED = """
SELECT true WHERE EXISTS (SELECT FROM files WHERE expires_at <= now())
  OR EXISTS (SELECT FROM file_objects JOIN uploads ON uploads.id = upload_id
             WHERE file_objects.file_id IS NULL AND uploads.expires_at <= now()
               AND file_objects.created_at < now() - interval '15 minutes')
  OR EXISTS (SELECT FROM file_objects WHERE file_id IS NULL AND created_at < now() - interval '2 days')
"""


def expire_ended_imports(connection: Connection) -> bool:
    """Let the imported files of all accounts expire with their jobs. Returns whether any file has expired."""
    connection.execute(EXPIRE_ENDED_IMPORTS)
    return fetch_one(connection, ANY_EXPIRED) is not None


#: The columns of FileKeys, of a file and of an upload that is not complete.
OF_FILES = """
files.id, files.account_id,
array_append((SELECT array_agg(file_objects.object_key) FROM file_objects WHERE file_id = files.id), files.object_key)
  AS keys
"""
OF_UPLOADS = """
uploads.id, uploads.account_id,
coalesce((SELECT array_agg(file_objects.object_key) FROM file_objects
          WHERE upload_id = uploads.id AND file_objects.file_id IS NULL), '{}') AS keys
"""

EXPIRED = f"SELECT {OF_FILES} FROM files WHERE files.expires_at <= now() ORDER BY files.expires_at LIMIT %(limit)s"


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A file or upload, and the keys of all of its objects."""

    id: str
    account_id: str
    keys: Sequence[str]


def expired(connection: Connection, limit: int) -> list[FileKeys]:
    """Return at most `limit` expired files of all accounts."""
    return [FileKeys(**row) for row in fetch_all(connection, EXPIRED, {"limit": limit})]
