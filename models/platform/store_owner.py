"""The mark of the installation that deletes objects without a row from the store.

Two installations that share a bucket and prefix, such as a copy for tests, have different rows. What one has no row for
may be a file of the other. So only the installation that the mark names sweeps, and only a week after the mark was
written: until then the other one, or `sangha doctor`, has reported that it is not its own.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from models.platform.errors import NotFound
from models.platform.object_store import ObjectExists, ObjectStore

#: The object with the id of the database. No account has this id.
MARK = "installation"

#: Time between the mark and the first sweep.
GRACE = timedelta(days=7)


def owner_of(objects: ObjectStore) -> str | None:
    """Return the id in the mark, or None if there is none. Raises Unavailable."""
    try:
        return b"".join(objects.get(MARK)).decode().strip()
    except NotFound:
        return None


def mark(objects: ObjectStore, database_id: str) -> str:
    """Write the mark if there is none. Returns the id in it. Raises Unavailable."""
    if (owner := owner_of(objects)) is not None:
        return owner
    with suppress(ObjectExists):
        objects.put(MARK, [f"{database_id}\n".encode()], only_if_absent=True)
    return owner_of(objects) or database_id


def replace_mark(objects: ObjectStore, database_id: str) -> None:
    """Make this installation the owner. The week begins again. Raises Unavailable."""
    objects.put(MARK, [f"{database_id}\n".encode()])


def sweeps_from(objects: ObjectStore) -> datetime:
    """Return the time from which on objects are swept. Raises NotFound without a mark, and Unavailable."""
    return objects.head(MARK).modified.astimezone(UTC) + GRACE
