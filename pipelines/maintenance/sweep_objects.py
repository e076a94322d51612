"""Delete objects of the store that have no row, and what interrupted writers left over.

An object gets its row before or while it is stored, so one of more than a day without a row is left over: of a process
that died, or of a write that was still under way when its account was erased. Objects of accounts that this database
has never had are counted and kept: they belong to another installation, or were put there by hand.

The position is stored after each page of the listing, so that the next attempt continues there.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from models.accounts import owned_objects
from models.accounts.owned_objects import account_of
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.object_store import ObjectInfo, ObjectStore
from models.platform.store_owner import MARK, mark, sweeps_from
from pipelines.time_slice import TimeSlice

log = logging.getLogger(__name__)

KIND = "maintenance.sweep_objects"

#: Objects whose rows one statement looks up.
PAGE = 1000

#: Age of an object that may be left over.
AGE = timedelta(days=1)


@dataclass(slots=True)
class Sweep:
    """How far a sweep is: the last key, and numbers of objects."""

    after: str = ""
    seen: int = 0
    deleted: int = 0
    unknown: int = 0


def run(objects: ObjectStore, attempt: Attempt) -> Ending:
    """Sweep if this installation owns the store. Raises Unavailable, the reason to stop, and Released."""
    if (reason := reason_not_to_sweep(objects, attempt)) is not None:
        log.warning("Objects without a row are not deleted: %s", reason)
        return plain_ending(attempt, "completed", result={"skipped": reason})
    sweep = Sweep(**(attempt.job.progress or {}).get("resume") or {})
    unfinished = objects.delete_unfinished(AGE.total_seconds())
    time_slice = TimeSlice(attempt)
    for page in _pages(objects, sweep.after):
        _sweep_page(objects, attempt, page, sweep)
        attempt.report_progress(sweep.seen, note="objects", resume=asdict(sweep))
        time_slice.check()
    if sweep.unknown:
        log.warning("%d objects in %s belong to no account of this installation.", sweep.unknown, objects.name)
    result = {"objects": sweep.seen, "deleted": sweep.deleted, "unknown": sweep.unknown, "unfinished": unfinished}
    return plain_ending(attempt, "completed", result=result)


def reason_not_to_sweep(objects: ObjectStore, attempt: Attempt) -> str | None:
    """Return why nothing may be deleted, or None. Writes the mark of a store without one."""
    with attempt.database.connection() as connection:
        database_id = owned_objects.database_id(connection)
    if (owner := mark(objects, database_id)) != database_id:
        return f"{objects.name} is marked as that of another database, {owner}: see `sangha files claim --help`."
    begin = sweeps_from(objects)
    return f"the mark of {objects.name} is new: from {begin:%Y-%m-%d} on" if begin > datetime.now(UTC) else None


def _pages(objects: ObjectStore, after: str) -> Iterator[Sequence[ObjectInfo]]:
    listed = objects.list(after=after)
    while page := list(islice(listed, PAGE)):
        yield page


def _sweep_page(objects: ObjectStore, attempt: Attempt, page: Sequence[ObjectInfo], sweep: Sweep) -> None:
    before = datetime.now(UTC) - AGE
    old = [each.key for each in page if each.modified < before and each.key != MARK]
    with attempt.database.connection() as connection:
        left_over = set(old) - owned_objects.owned_keys(connection, old)
        known = owned_objects.known_accounts(connection, left_over)
    deletable = sorted(key for key in left_over if account_of(key) in known)
    objects.delete(deletable)
    sweep.after, sweep.seen = page[-1].key, sweep.seen + len(page)
    sweep.deleted, sweep.unknown = sweep.deleted + len(deletable), sweep.unknown + len(left_over) - len(deletable)
