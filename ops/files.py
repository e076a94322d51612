"""`sangha files`: copy the content of all files to another store, and mark a store as this installation's."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import click

from models.accounts.owned_objects import database_id
from models.platform.errors import Unavailable
from models.platform.object_errors import ObjectStoreUnavailable
from models.platform.object_store import ObjectInfo, ObjectStore
from models.platform.settings import Settings
from models.platform.store_owner import owner_of, replace_mark
from ops.database_connection import transaction

#: Objects that are copied at the same time, and after how many the progress is printed.
THREADS, PAGE = 8, 1000


def copy(settings: Settings, destination: str) -> None:
    """Copy all objects that the destination lacks, and compare those whose key has a digest. Raises Unavailable."""
    source = ObjectStore.open(settings)
    target = ObjectStore.open(settings.model_copy(update={"object_store": destination}))
    copied = 0
    missing = _missing(source.list(), target.list())
    with _reasons(), ThreadPoolExecutor(THREADS) as threads:
        while page := list(itertools.islice(missing, PAGE)):
            sizes = list(threads.map(lambda found: target.put(found.key, source.get(found.key)), page))
            copied += len(sizes)
            click.echo(f"{copied} objects copied, the last one {page[-1].key}")
    click.echo(f"{target.name} has all objects of {source.name}")


@contextmanager
def _reasons() -> Iterator[None]:
    """Raise Unavailable with what an operator can do."""
    try:
        yield
    except ObjectStoreUnavailable as error:
        raise Unavailable(error.reason) from error


def _missing(source: Iterator[ObjectInfo], target: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Return the objects that the target lacks, or has with another size. Both are in the order of their keys."""
    there = next(target, None)
    for found in source:
        while there is not None and there.key < found.key:
            there = next(target, None)
        if there is None or (there.key, there.size) != (found.key, found.size):
            yield found


def claim(settings: Settings) -> None:
    """Mark the store as this installation's. Raises Unavailable."""
    objects = ObjectStore.open(settings)
    with transaction(settings) as connection:
        own = database_id(connection)
    with _reasons():
        if (owner := owner_of(objects)) == own:
            click.echo(f"{objects.name} is marked as this installation's already")
            return
        replace_mark(objects, own)
    former = f" It was marked as that of {owner}." if owner else ""
    click.echo(f"{objects.name} is now marked as this installation's.{former}")
