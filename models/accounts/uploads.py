"""Uploads: files that are not complete yet. Their parts are stored one by one, in objects that the upload owns.

An object's row is inserted before the object is stored, a part's row once all of its objects are. Completing an upload
writes rows only: its objects become those of a file, in the order of the parts. So a file is complete from its first
moment, and whatever is stored has a row by which it is deleted.

    pending ──complete──► completed (the objects of its parts belong to the file)
       ├──────cancel────► cancelled  }  the objects are left over, and swept
       └──────time──────► expired    }
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from models.accounts.files import Audience, StoredObject
from models.platform.database import Connection, fetch_all, fetch_one

#: Seconds after which an upload that was not completed expires, as that of OpenAI.
LIFETIME = 3600

#: Seconds for which an object without an upload may still be being stored.
STORING = 900

#: Hours for which the row of an upload is kept after it expired.
KEPT_HOURS = 24

Status = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True)
class NewFile:
    """What a file will be. It expires `seconds` after it was created; None: never."""

    filename: str
    purpose: str
    content_type: str
    audience: Audience
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A row of `uploads`. `stored` is the bytes of its parts."""

    id: str
    account_id: str
    user_id: str | None
    status: Status
    file: NewFile
    bytes: int
    stored: int
    parts: int
    file_id: str | None
    created_at: datetime
    expires_at: datetime


INSERT = """
INSERT INTO uploads (id, account_id, user_id, job_id, visible, filename, purpose, content_type, audience, file_seconds,
                     bytes, expires_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(job_id)s, %(visible)s, %(filename)s, %(purpose)s, %(content_type)s,
        %(audience)s, %(seconds)s, %(bytes)s, now() + make_interval(secs => %(lifetime)s))
ON CONFLICT (id) DO NOTHING
"""


def insert(
    connection: Connection,
    upload_id: str,
    account_id: str,
    *,
    user_id: str | None,
    size: int,
    file: NewFile | None = None,
    visible: bool = False,
    job_id: str | None = None,
    lifetime: int = LIFETIME,
) -> None:
    """Insert an upload of `size` bytes. An existing one is left as it is.

    file     what it becomes; None: known once it is completed
    visible  whether `/v1/uploads` has it
    """
    file = file or NewFile("", "", "", "user")
    connection.execute(
        INSERT,
        {
            "id": upload_id,
            "account_id": account_id,
            "user_id": user_id,
            "job_id": job_id,
            "visible": visible,
            "filename": file.filename,
            "purpose": file.purpose,
            "content_type": file.content_type,
            "audience": file.audience,
            "seconds": file.seconds,
            "bytes": size,
            "lifetime": lifetime,
        },
    )


RESERVE = "UPDATE uploads SET bytes = %(bytes)s WHERE id = %(id)s AND account_id = %(account_id)s"


def set_size(connection: Connection, upload_id: str, account_id: str, size: int) -> None:
    """Set the bytes that an upload of unknown size has reserved."""
    connection.execute(RESERVE, {"id": upload_id, "account_id": account_id, "bytes": size})


READ = """
SELECT uploads.id, uploads.account_id, uploads.user_id, filename, purpose, content_type, audience, file_seconds,
       uploads.bytes, file_id, uploads.created_at, uploads.expires_at,
       CASE WHEN status = 'pending' AND uploads.expires_at <= now() THEN 'expired' ELSE status END AS status,
       (SELECT coalesce(sum(upload_parts.bytes), 0)::bigint FROM upload_parts WHERE upload_id = uploads.id) AS stored,
       (SELECT count(*) FROM upload_parts WHERE upload_id = uploads.id) AS parts
FROM uploads
WHERE uploads.id = %(id)s AND uploads.account_id = %(account_id)s
"""

READ_VISIBLE = READ + "AND visible AND uploads.user_id = %(user_id)s"


def read(connection: Connection, upload_id: str, account_id: str, user_id: str) -> Upload | None:
    """Return a user's upload, of those that `/v1/uploads` has."""
    row = fetch_one(connection, READ_VISIBLE, {"id": upload_id, "account_id": account_id, "user_id": user_id})
    return _upload(row) if row else None


LOCK = "SELECT FROM uploads WHERE id = %(id)s AND account_id = %(account_id)s FOR UPDATE"


def lock(connection: Connection, upload_id: str, account_id: str) -> Upload | None:
    """Lock an upload until the transaction ends and return it."""
    names = {"id": upload_id, "account_id": account_id}
    if fetch_one(connection, LOCK, names) is None:
        return None
    row = fetch_one(connection, READ, names)  # a statement of its own, so that it sees what the lock waited for
    return _upload(row) if row else None


def _upload(row: dict[str, Any]) -> Upload:
    about = {name: row.pop(name) for name in ("filename", "purpose", "content_type", "audience")}
    return Upload(file=NewFile(**about, seconds=row.pop("file_seconds")), **row)


# The lock lets a cancel wait for it.
ADD_OBJECT = """
INSERT INTO file_objects (object_key, account_id, upload_id, part_id, number, bytes)
SELECT %(key)s, uploads.account_id, uploads.id, %(part_id)s, %(number)s, %(bytes)s FROM uploads
WHERE id = %(upload_id)s AND account_id = %(account_id)s AND status = 'pending' AND expires_at > now() FOR SHARE
RETURNING object_key
"""


def add_object(
    connection: Connection, upload_id: str, account_id: str, *, part_id: str, number: int, key: str, size: int
) -> bool:
    """Insert the next object of a part before it is stored. Returns whether the upload is still pending."""
    names = {"key": key, "account_id": account_id, "upload_id": upload_id, "part_id": part_id}
    return fetch_one(connection, ADD_OBJECT, {**names, "number": number, "bytes": size}) is not None


ADD_PART = """
INSERT INTO upload_parts (id, upload_id, account_id, bytes)
SELECT %(part_id)s, uploads.id, uploads.account_id, %(bytes)s FROM uploads
WHERE id = %(upload_id)s AND account_id = %(account_id)s AND status = 'pending' AND expires_at > now() FOR SHARE
RETURNING created_at
"""


def add_part(connection: Connection, upload_id: str, account_id: str, *, part_id: str, size: int) -> datetime | None:
    """Insert a part whose objects are stored. Returns its time; None if the upload is no longer pending."""
    names = {"part_id": part_id, "upload_id": upload_id, "account_id": account_id, "bytes": size}
    row = fetch_one(connection, ADD_PART, names)
    return row["created_at"] if row else None


PARTS = "SELECT id, bytes FROM upload_parts WHERE upload_id = %(id)s AND account_id = %(account_id)s"


def part_sizes(connection: Connection, upload_id: str, account_id: str) -> dict[str, int]:
    """Return the bytes of an upload's parts by id."""
    rows = fetch_all(connection, PARTS, {"id": upload_id, "account_id": account_id})
    return {row["id"]: row["bytes"] for row in rows}


OBJECTS = """
SELECT object_key AS key, bytes
FROM file_objects JOIN unnest(%(part_ids)s::text[]) WITH ORDINALITY AS part (id, position) ON part.id = part_id
WHERE upload_id = %(id)s AND account_id = %(account_id)s AND file_id IS NULL
ORDER BY part.position, number
"""


def part_objects(
    connection: Connection, upload_id: str, account_id: str, part_ids: Sequence[str]
) -> list[StoredObject]:
    """Return the objects of parts, in order."""
    names = {"id": upload_id, "account_id": account_id, "part_ids": list(part_ids)}
    return [StoredObject(**row) for row in fetch_all(connection, OBJECTS, names)]


# An upload of a user becomes a file only while the user is a member; that of a job while the account exists.
LOCK_MEMBER = "SELECT FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s FOR KEY SHARE"
LOCK_ACCOUNT = "SELECT FROM accounts WHERE id = %(account_id)s AND erased_at IS NULL FOR KEY SHARE"


def lock_owner(connection: Connection, account_id: str, user_id: str | None) -> bool:
    """Keep the user, or the account without one, from being erased until the transaction ends; False if it was."""
    statement = LOCK_ACCOUNT if user_id is None else LOCK_MEMBER
    return fetch_one(connection, statement, {"account_id": account_id, "user_id": user_id}) is not None


INSERT_FILE = """
INSERT INTO files (id, account_id, user_id, job_id, filename, purpose, content_type, audience, bytes, object_key,
                   expires_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(job_id)s, %(filename)s, %(purpose)s, %(content_type)s, %(audience)s,
        %(bytes)s, %(key)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (id) DO NOTHING
RETURNING id
"""

GIVE_OBJECTS = """
UPDATE file_objects SET file_id = %(id)s, position = part.position
FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS part (key, position)
WHERE object_key = part.key AND account_id = %(account_id)s
"""

COMPLETE = """
UPDATE uploads SET status = 'completed', file_id = %(id)s WHERE id = %(upload_id)s AND account_id = %(account_id)s
"""


def complete(
    connection: Connection,
    upload: Upload,
    file_id: str,
    file: NewFile,
    *,
    size: int,
    objects: Sequence[StoredObject],
    job_id: str | None = None,
) -> bool:
    """Turn a locked upload into a file with these objects. Returns False if the file exists: it is left as it is."""
    names = {
        "id": file_id,
        "account_id": upload.account_id,
        "upload_id": upload.id,
        "keys": [stored.key for stored in objects],
    }
    about = {"filename": file.filename, "purpose": file.purpose, "content_type": file.content_type}
    new = {"user_id": upload.user_id, "job_id": job_id, "audience": file.audience, "seconds": file.seconds}
    if not fetch_one(connection, INSERT_FILE, {**names, **about, **new, "bytes": size, "key": objects[0].key}):
        return False
    connection.execute(GIVE_OBJECTS, names)
    connection.execute(COMPLETE, names)
    return True


CANCEL = """
UPDATE uploads SET status = 'cancelled' WHERE id = %(id)s AND account_id = %(account_id)s AND status = 'pending'
"""


def cancel(connection: Connection, upload_id: str, account_id: str) -> None:
    """Cancel a pending upload: its objects are left over."""
    connection.execute(CANCEL, {"id": upload_id, "account_id": account_id})


# Objects of complete parts are stored; others may be being stored for a while yet.
LEFT_OVER = """
SELECT object_key FROM file_objects LEFT JOIN uploads ON uploads.id = upload_id
WHERE file_objects.file_id IS NULL AND (%(upload_id)s::text IS NULL OR upload_id = %(upload_id)s)
  AND (uploads.id IS NULL OR status <> 'pending' OR uploads.expires_at <= now())
  AND (file_objects.created_at < now() - make_interval(secs => %(storing)s)
       OR EXISTS (SELECT FROM upload_parts WHERE upload_parts.id = part_id))
LIMIT %(limit)s
"""


def left_over(connection: Connection, limit: int, *, upload_id: str | None = None) -> list[str]:
    """Return the keys of at most `limit` objects that belong to no file and no pending upload, of all accounts."""
    names = {"upload_id": upload_id, "storing": STORING, "limit": limit}
    return [row["object_key"] for row in fetch_all(connection, LEFT_OVER, names)]


def delete_objects(connection: Connection, keys: Sequence[str]) -> None:
    """Delete the rows of objects that belong to no file. The caller has deleted the objects before."""
    statement = "DELETE FROM file_objects WHERE object_key = ANY(%(keys)s) AND file_id IS NULL"
    connection.execute(statement, {"keys": list(keys)})


PRUNE = """
WITH page AS MATERIALIZED (
    SELECT id FROM uploads
    WHERE expires_at < now() - make_interval(hours => CASE WHEN visible THEN %(hours)s ELSE 1 END)
      AND NOT EXISTS (SELECT FROM file_objects WHERE upload_id = uploads.id AND file_objects.file_id IS NULL)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM uploads USING page WHERE uploads.id = page.id
"""


def prune(connection: Connection, limit: int) -> int:
    """Delete at most `limit` uploads that expired a day ago, whose left-over objects are deleted. Returns how many."""
    return connection.execute(PRUNE, {"hours": KEPT_HOURS, "limit": limit}).rowcount
