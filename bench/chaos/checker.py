"""Check all that the clients received, and every table, and report the violated guarantees."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from bench.chaos import (
    batch_rules,
    file_rules,
    memory_rules,
    money_rules,
    promise_rules,
    report_rules,
    spill_rules,
    stream_rules,
    table_rules,
    tree_rules,
)
from bench.chaos.breaker_rules import check_openings
from bench.chaos.budget_watch import BudgetWatch
from bench.chaos.crash_rules import CrashRules, forgotten_stops, silent_periods
from bench.chaos.excuses import Excuses
from bench.chaos.fault import InjectedFault
from bench.chaos.faults import EVICTIONS
from bench.chaos.quiescence import RabbitmqCtl, wait_for_quiescence
from bench.chaos.supervised_processes import WorkerDeath
from bench.chaos.table_rules import NONE
from bench.chaos.tool_server import ToolServer
from bench.chaos.transcripts import BatchTranscript, ClientTranscript, Period, TreeTranscript
from bench.chaos.violations import Violation
from bench.harness.endpoint.book import BookedRequest
from models.jobs import ended_partitions
from models.jobs.ended_jobs import Cursor, move_batch
from models.platform.database import Database
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings

#: Trees of ended jobs that are moved at a time.
TREES = 500

#: Faults that delete the journal.
JOURNAL_LOSSES = frozenset({"wipe-valkey", "wipe-with-worker"})


def check(
    transcripts: Sequence[ClientTranscript],
    settings: Settings,
    patience: float,
    *,
    injected: Sequence[InjectedFault] = (),
    deaths: Sequence[WorkerDeath] = (),
    lost_commits: Sequence[Period] = (),
    excuses: Excuses = NONE,
    rabbitmqctl: RabbitmqCtl | None = None,
    move: bool = False,
    tools: ToolServer | None = None,
    budgets: BudgetWatch | None = None,
    book: Sequence[BookedRequest] | None = None,
) -> Sequence[Violation]:
    """Wait until the platform is idle, for `patience` seconds at most, and report all violations.

    settings  lead to the servers directly, not through links
    move      move all ended trees to `ended_jobs` first, to check turns as the platform keeps them
    tools     those that trees have called, with their executions
    budgets   of the trees, before they are moved
    book      of the endpoint; None: the run has none
    """
    offset = time.time() - time.monotonic()
    silences = [*silent_periods(injected, offset), *forgotten_stops(injected, lost_commits, offset)]
    crash_rules, lost = CrashRules(deaths, silences), journal_lost(injected, deaths)
    with closing(Database(settings.postgres_dsn, size=2, name="checker")) as database:
        unfinished = list(wait_for_quiescence(database, settings, patience, rabbitmqctl))
        if budgets is not None:
            budgets.look()
        if move:
            move_ended_jobs(database)
        return [
            *unfinished,
            *_check(database, transcripts, crash_rules, excuses, journal_lost=lost),
            *_check_trees(database, transcripts, tools, budgets, excuses, journal_lost=lost),
            *_check_files(database, settings, transcripts, excuses),
            *report_rules.check(database, transcripts, excuses.lost, lost_commits=bool(lost_commits)),
            *_check_spilling(database, transcripts, book, excuses),
            *check_openings(book or (), injected, offset),
        ]


def move_ended_jobs(database: Database) -> None:
    """Move all trees that have ended, also where the platform does not do it, since the upgrade is not finalized."""
    ended_partitions.create_missing(database)
    cursor: Cursor | None = Cursor()
    while cursor is not None:
        with database.transaction() as connection:
            cursor = move_batch(connection, TREES, age=0, after=cursor).next


def journal_lost(injected: Sequence[InjectedFault], deaths: Sequence[WorkerDeath]) -> bool:
    """Return whether events may have been lost: with Valkey's data, or with a worker while Valkey had lost its journal.

    A worker that lives has its job's events, and writes those again that Valkey loses.
    """
    names = {fault.name for fault in injected}
    return bool(names & JOURNAL_LOSSES) or (bool(names & EVICTIONS) and bool(deaths))


def _check(
    database: Database,
    transcripts: Sequence[ClientTranscript],
    crash_rules: CrashRules,
    excuses: Excuses,
    *,
    journal_lost: bool,
) -> Iterator[Violation]:
    turns = [each for each in transcripts if not isinstance(each, BatchTranscript | TreeTranscript)]
    batches = [each for each in transcripts if isinstance(each, BatchTranscript)]
    for transcript in turns:
        yield from stream_rules.check(
            transcript,
            journal_lost=journal_lost,
            excused=transcript.key in excuses.lost,
            mixed=transcript.key in excuses.mixed,
        )
    others = {each.account for each in transcripts if isinstance(each, BatchTranscript | TreeTranscript)}
    accounts = sorted({transcript.account for transcript in transcripts} - others)
    with database.connection() as connection:
        yield from table_rules.check(connection, turns, accounts, excuses)
        yield from memory_rules.check(connection, turns, accounts, excuses.lost)
        yield from batch_rules.check(connection, batches, excuses.lost)
        yield from crash_rules.check(connection)
    yield from money_rules.check(database)
    yield from promise_rules.check(database)


def _check_files(
    database: Database, settings: Settings, transcripts: Sequence[ClientTranscript], excuses: Excuses
) -> Iterator[Violation]:
    accounts = sorted({transcript.account for transcript in transcripts if transcript.kind == "file"})
    with database.connection() as connection:
        yield from file_rules.check(connection, ObjectStore.open(settings), transcripts, accounts, excuses.lost)


def _check_spilling(
    database: Database,
    transcripts: Sequence[ClientTranscript],
    book: Sequence[BookedRequest] | None,
    excuses: Excuses,
) -> Iterator[Violation]:
    if book is not None:
        with database.connection() as connection:
            yield from spill_rules.check(connection, transcripts, book, excuses)


def _check_trees(
    database: Database,
    transcripts: Sequence[ClientTranscript],
    tools: ToolServer | None,
    budgets: BudgetWatch | None,
    excuses: Excuses,
    *,
    journal_lost: bool,
) -> Iterator[Violation]:
    for transcript in transcripts:
        if isinstance(transcript, TreeTranscript):
            excused = transcript.key in excuses.lost
            yield from tree_rules.check_received(transcript, journal_lost=journal_lost, excused=excused)
    executions = tools.executions if tools is not None else ()
    with database.connection() as connection:
        yield from tree_rules.check(connection, transcripts, executions, budgets, excuses)
