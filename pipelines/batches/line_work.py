"""The jobs of a line, to insert: its turns, or the job that embeds its texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import orjson

from models.batches.batches import BATCH_ARGUMENT, Batch
from models.batches.lines import Line
from models.billing.spending import MostTokens
from models.jobs.budgets import open_budget
from models.jobs.jobs import NewJob, enqueue_many
from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from models.platform.ids import IdGenerator
from models.turns import responses
from pipelines.batches.worker import BatchContext
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import PreparedTurn, prepare_turn
from pipelines.embeddings.enqueue_embedding import embedding_job, most_embedding_tokens
from pipelines.requests.lines import LineEndpoint, LineTexts, line_turn
from pipelines.routing.residency import check_new_job

#: Days after the end of its batch's window for which the turn of a line is kept if nothing has read it.
KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class LineJob:
    """A job of a line. `insert` inserts it, in a transaction that has reserved `most` for it."""

    job: NewJob
    most: MostTokens
    agent: str | None
    insert: Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class LineWork:
    """A line with its jobs."""

    line: Line
    jobs: Sequence[LineJob]

    @property
    def reserved_tokens(self) -> int:
        """What the jobs reserve of the account's month."""
        return sum(each.job.reserved_tokens for each in self.jobs)

    @property
    def most_tokens(self) -> int:
        """The most tokens that the jobs can use, where these or their cost are limited."""
        return sum(each.most.input_tokens + each.most.output_tokens for each in self.jobs)


def line_ids(batch: Batch, position: int, choice: int = 0) -> IdGenerator:
    """Return what generates the ids of a line: each attempt gets the same ones."""
    return IdGenerator(f"{position}.{choice}.{batch.id}")


def prepare_line(connection: Connection, batch: Batch, line: Line, context: BatchContext) -> LineWork:
    """Return the work of a line. Reads only. Raises RequestError as the line's endpoint does."""
    body = orjson.loads(line.body)
    requested = line_turn(cast(LineEndpoint, batch.endpoint), body, context.line)
    if isinstance(requested, LineTexts):
        jobs = [_embedding(batch, line, requested, context)]
    else:
        jobs = [_turn(connection, batch, line, turn, choice, context) for choice, turn in enumerate(requested.turns)]
    return LineWork(replace(line, job_ids=[each.job.id for each in jobs]), jobs)


def _embedding(batch: Batch, line: Line, requested: LineTexts, context: BatchContext) -> LineJob:
    ids, caller = line_ids(batch, line.position), context.line.caller
    texts = requested.texts
    job = embedding_job(caller, texts, requested.dimensions, ids.new("job"), context.allowance, batch=True)
    job = _of_batch(batch, job)
    most = most_embedding_tokens(texts, requested.model, batch=True)

    def insert(connection: Connection) -> None:
        enqueue_many(connection, [job])

    return LineJob(job, most, None, insert)


def _turn(
    connection: Connection, batch: Batch, line: Line, turn: NewTurn, choice: int, context: BatchContext
) -> LineJob:
    ids, caller = line_ids(batch, line.position, choice), context.line.caller
    prepared = prepare_turn(
        connection, caller, turn, ids.new("resp"), ids.new("job"), context.allowance, models=context.models
    )
    check_new_job(context.line.serving.settings, caller, prepared.job)
    if prepared.answers:
        raise InvalidRequest("Requests of a batch cannot answer approvals.", param="input", code="unsupported_value")
    # The stream of a line has no reader, so that its first events need no room while it waits.
    job = replace(_of_batch(batch, prepared.job), opening=(), batch=True, first=False)
    response = prepared.response
    if response.expires_at is not None:
        response = replace(response, expires_at=batch.expires_at + timedelta(days=KEPT_DAYS))
    prepared = replace(prepared, job=job, response=response)
    agent = (response.request.get("agent") or {}).get("name")

    def insert(inserting: Connection) -> None:
        _insert_turn(inserting, prepared)

    return LineJob(job, prepared.most_tokens, agent, insert)


def _insert_turn(connection: Connection, prepared: PreparedTurn) -> None:
    responses.insert_with_job(connection, prepared.response, prepared.job)
    if prepared.budget is not None:
        open_budget(connection, prepared.job.id, prepared.job.account_id, prepared.budget)


def _of_batch(batch: Batch, job: NewJob) -> NewJob:
    return replace(job, arguments={**job.arguments, BATCH_ARGUMENT: batch.id})
