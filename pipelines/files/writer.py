"""Write the content of a part of an upload, as objects of a bounded size.

Each object is put in one request, atomically, and has a row before it is put. So nothing is kept in memory but one
object, and an interrupted write leaves no hidden pieces in the store, only objects that their rows name.
"""

import io
from dataclasses import dataclass, field
from datetime import datetime

from models.accounts import uploads
from models.platform.database import Database
from models.platform.errors import Conflict
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore, key_with_digest

#: Bytes of an object.
OBJECT_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class PartWriter:
    """Writes one part. Its part's row is inserted by `finish`. `size` counts the bytes written."""

    database: Database
    objects: ObjectStore
    upload_id: str
    account_id: str
    part_id: str
    size: int = 0
    keys: list[str] = field(default_factory=list)

    def write(self, content: bytes | bytearray) -> None:
        """Store the next object. Raises Conflict if the upload is no longer pending, and Unavailable."""
        key = key_with_digest(f"{self.account_id}/files/{new_id('object').removeprefix('object_')}", content)
        with self.database.connection() as connection:
            added = uploads.add_object(
                connection,
                self.upload_id,
                self.account_id,
                part_id=self.part_id,
                number=len(self.keys),
                key=key,
                size=len(content),
            )
        if not added:
            raise no_longer_pending()
        self.objects.put(key, io.BytesIO(content))
        self.keys.append(key)
        self.size += len(content)

    def finish(self) -> datetime:
        """Insert the part. Returns its time. Raises Conflict if the upload is no longer pending."""
        if not self.keys:
            self.write(b"")
        with self.database.connection() as connection:
            created_at = uploads.add_part(
                connection, self.upload_id, self.account_id, part_id=self.part_id, size=self.size
            )
        if created_at is None:
            raise no_longer_pending()
        return created_at


def no_longer_pending() -> Conflict:
    """Return the error for an upload that was completed or cancelled, or has expired."""
    return Conflict("The upload was completed or cancelled, or it has expired.", code="upload_not_pending")
