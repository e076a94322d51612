"""Begin lines of a batch: insert the jobs of a set of them in one transaction.

So many lines run at a time as keep the workers busy until the batch's job looks again. Lines do not count for the
account's limit of unfinished jobs; what they reserve counts for its month and its spending limits. If there is no room
for a line, it waits for others to end, and is rejected once nothing is reserved that could make room.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby, takewhile

from models.batches import lines, progress
from models.batches.batches import Batch
from models.batches.lines import EndedLine, Line
from models.billing.spending import monthly_spending, reserve
from models.jobs.attempt_context import Attempt
from models.jobs.quota import check_quota, lock_account, monthly_usage
from models.platform.database import Connection
from models.platform.errors import InsufficientQuota, RequestError, SpendingLimitReached
from pipelines.batches.answers import rejected
from pipelines.batches.line_work import LineJob, LineWork, prepare_line
from pipelines.batches.worker import BatchContext

#: Lines of an account's batches that run at a time, and of each one at least.
RUNNING, LEAST_RUNNING = 1000, 50

#: Lines that one transaction begins.
SET = 200

#: A line that begins, or that is rejected at once.
Prepared = LineWork | EndedLine


def begin_lines(attempt: Attempt, batch: Batch, context: BatchContext) -> int:
    """Begin the next set of lines. Returns how many; 0 if there is no room for any now."""
    with attempt.database.connection() as connection:
        others = progress.in_progress(connection, batch.account_id)
        room = max(LEAST_RUNNING, RUNNING // max(others, 1)) - batch.running_lines
        if room <= 0:
            return 0
        next_lines = lines.waiting(connection, batch, min(room, SET))
        prepared = [_prepare(connection, batch, line, context) for line in next_lines]
    return _insert_what_fits(attempt, batch, context, next_lines, prepared)


def _prepare(connection: Connection, batch: Batch, line: Line, context: BatchContext) -> Prepared:
    try:
        return prepare_line(connection, batch, line, context)
    except RequestError as error:
        return rejected(batch, line, error)


def _insert_what_fits(
    attempt: Attempt, batch: Batch, context: BatchContext, next_lines: Sequence[Line], prepared: Sequence[Prepared]
) -> int:
    """Begin all of the lines, or the first ones as many as fit; see the top of the file."""
    while prepared:
        try:
            return _insert(attempt, batch, context, prepared)
        except (InsufficientQuota, SpendingLimitReached) as error:
            refusal = error
        if len(prepared) == 1:
            break
        prepared = prepared[: len(prepared) // 2]
    if not prepared or batch.running_lines or _others_reserve(attempt, batch):
        return 0
    return _reject(attempt, batch, context, next_lines, prepared[0], refusal)


def _insert(attempt: Attempt, batch: Batch, context: BatchContext, prepared: Sequence[Prepared]) -> int:
    """Insert the jobs of lines. Returns how many lines; 0 if the batch was stopped meanwhile."""
    work = [each for each in prepared if isinstance(each, LineWork)]
    ended = [each for each in prepared if isinstance(each, EndedLine)]
    limits = context.allowance.limits
    with attempt.database.batch() as connection:
        lock_account(connection, batch.account_id, limits)  # before the job, which is one of the account's
        _reserve_money(connection, batch, context, [job for each in work for job in each.jobs])
        locked = progress.lock(connection, attempt.job)
        if locked.status != "in_progress" or locked.begun_lines != batch.begun_lines:
            return 0
        check_quota(connection, batch.account_id, limits, sum(each.reserved_tokens for each in work))
        for job in (job for each in work for job in each.jobs):
            job.insert(connection)
        lines.begin(connection, batch, [each.line for each in work])
        lines.end(connection, batch, ended)
        progress.advance(connection, batch, begun=len(prepared), failed=len(ended))
    return len(prepared)


def _reserve_money(connection: Connection, batch: Batch, context: BatchContext, jobs: Sequence[LineJob]) -> None:
    """Reserve the most that the lines can cost, by agent. Raises SpendingLimitReached."""
    if not context.allowance.billed:
        return
    key_id, required = context.line.caller.key_id, context.allowance.method_required
    for agent, of_agent in _by_agent(jobs):
        most = {each.job.id: each.most for each in of_agent}
        reserve(connection, batch.account_id, most, key_id=key_id, agent=agent, method_required=required)


def _by_agent(jobs: Iterable[LineJob]) -> Iterable[tuple[str | None, list[LineJob]]]:
    ordered = sorted(jobs, key=lambda job: job.agent or "")
    return [(name or None, list(group)) for name, group in groupby(ordered, key=lambda job: job.agent or "")]


def _others_reserve(attempt: Attempt, batch: Batch) -> bool:
    """Return whether the account's jobs reserve tokens or money, of which something may be left when they end."""
    with attempt.database.connection() as connection:
        reserved_tokens = monthly_usage(connection, batch.account_id).reserved
        return bool(reserved_tokens or monthly_spending(connection, batch.account_id).reserved)


def _reject(
    attempt: Attempt,
    batch: Batch,
    context: BatchContext,
    next_lines: Sequence[Line],
    first: Prepared,
    refusal: RequestError,
) -> int:
    """Reject the first line, for which there is no room, and those after it that need no less."""
    assert isinstance(first, LineWork)
    with attempt.database.connection() as connection:
        prepared = [_prepare(connection, batch, line, context) for line in next_lines]
    hopeless = takewhile(lambda each: isinstance(each, LineWork) and each.most_tokens >= first.most_tokens, prepared)
    ended = [rejected(batch, each.line, refusal) for each in hopeless if isinstance(each, LineWork)]
    return _insert(attempt, batch, context, ended)
