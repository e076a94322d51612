"""Check of the object store: a probe is written, read and deleted."""

import os
import time
import uuid
from collections.abc import Callable

import psycopg

from models.platform.errors import Unavailable
from models.platform.object_errors import ObjectStoreUnavailable
from models.platform.object_store import ObjectStore, key_with_digest
from models.platform.settings import Settings
from models.platform.store_owner import owner_of
from ops.doctor.finding import RUN_UP, Finding

#: Bytes of the probe.
PROBE = 64 * 1024

NAME = "object store"
GUIDE = "see docs/guides/object-storage.md"


def object_store(settings: Settings) -> Finding:
    """Check that an object can be written, read and deleted, and that the store is this installation's."""
    folder = settings.home / "objects"
    if settings.object_store is None and not settings.home.exists():
        return Finding("warn", NAME, f"{folder} does not exist yet; it is created on first use", RUN_UP)
    objects = ObjectStore.open(settings)
    try:
        times = _probe(objects)
        owner = owner_of(objects)
    except ObjectStoreUnavailable as error:
        return Finding("FAIL", NAME, f"{objects.name}: {error.reason}", GUIDE)
    if owner is not None and owner != _database_id(settings, owner):
        detail = f"{objects.name} is marked as that of another database, {owner}: nothing is swept"
        return Finding("warn", NAME, detail, "give each installation a prefix, or see `sangha files claim --help`")
    return Finding("ok", NAME, f"{objects.name}, {times}")


def _probe(objects: ObjectStore) -> str:
    """Write, read and delete an object. Returns the times, as text. Raises Unavailable."""
    content = os.urandom(PROBE)
    key = key_with_digest(f"doctor/{uuid.uuid4().hex}", content)
    try:
        written = _milliseconds(lambda: objects.put(key, [content]))
        read = _milliseconds(lambda: list(objects.get(key)))
    finally:
        deleted = _milliseconds(lambda: objects.delete([key]))
    return f"written in {written} ms, read in {read} ms, deleted in {deleted} ms"


def _milliseconds(call: Callable[[], object]) -> int:
    began = time.perf_counter()
    call()
    return round((time.perf_counter() - began) * 1000)


def _database_id(settings: Settings, unknown: str) -> str:
    """Return the id of the database, or `unknown` if it cannot be reached: another check reports that."""
    from models.accounts.owned_objects import database_id
    from ops.database_connection import transaction

    try:
        with transaction(settings) as connection:
            return database_id(connection)
    except (Unavailable, psycopg.Error):
        return unknown
