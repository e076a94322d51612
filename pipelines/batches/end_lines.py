"""End lines of a batch whose jobs have ended: store their answers, and delete what only they need."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from models.batches import lines, progress
from models.batches.batches import Batch
from models.batches.lines import EndedLine, Line
from models.jobs import job_deletion, jobs
from models.jobs.attempt_context import Attempt
from models.jobs.jobs import Job
from models.jobs.usage import TokenUsage
from models.platform.errors import NotFound, RequestError
from models.serving.served_models import ServedModels
from models.turns import responses
from models.turns.embeddings import parse_result
from models.turns.responses import Response
from pipelines.batches.answers import answered, rejected, unfinished
from pipelines.chat.response_objects import response_object
from pipelines.requests.lines import LineEndpoint, line_embedding_error, line_embeddings, line_result

#: Lines that one transaction ends. Vectors have megabytes.
SET, EMBEDDING_SET = 200, 8

EMBEDDINGS = "/v1/embeddings"


def end_lines(attempt: Attempt, batch: Batch, models: ServedModels) -> int:
    """End a set of lines whose jobs have ended. Returns how many lines."""
    limit = EMBEDDING_SET if batch.endpoint == EMBEDDINGS else SET
    with attempt.database.connection() as connection:
        next_lines = lines.ended(connection, batch, limit)
        job_ids = [job_id for line in next_lines for job_id in line.job_ids]
        if batch.endpoint == EMBEDDINGS:
            found = {job.id: job for job in jobs.read_many(connection, job_ids, batch.account_id)}
            results = [_embedding_result(batch, line, found.get(line.job_ids[0])) for line in next_lines]
        else:
            turns = {turn.job_id: turn for turn in responses.read_of_jobs(connection, job_ids, batch.account_id)}
            results = [_turn_result(batch, line, turns, models) for line in next_lines]
    _store(attempt, batch, results)
    return len(results)


#: The end of a line, what it has used, and the jobs that only it has needed.
Result = tuple[EndedLine, TokenUsage, Sequence[str]]

NO_TOKENS = TokenUsage(0, 0, 0)


def _turn_result(batch: Batch, line: Line, turns: Mapping[str, Response], models: ServedModels) -> Result:
    found = [turns[job_id] for job_id in line.job_ids if job_id in turns]
    unstored = [turn.job_id for turn in found if turn.expires_at is not None]
    return _turn_end(batch, line, found, models), _turn_usage(found), unstored


def _turn_end(batch: Batch, line: Line, found: Sequence[Response], models: ServedModels) -> EndedLine:
    if len(found) < len(line.job_ids):
        return rejected(batch, line, NotFound("The response was deleted before the batch ended.", code="deleted"))
    if batch.ends_as is not None and any(turn.job_state == "cancelled" for turn in found):
        return unfinished(batch, line)
    shown = [cast(Mapping[str, Any], response_object(turn)) for turn in found]
    try:
        endpoint, body = cast(LineEndpoint, batch.endpoint), orjson.loads(line.body)
        return answered(batch, line, line_result(endpoint, body, shown, models))
    except RequestError as error:  # the body is read again, perhaps by another version
        return rejected(batch, line, error)


def _turn_usage(found: Sequence[Response]) -> TokenUsage:
    usages = [turn.usage for turn in found if turn.usage]
    return TokenUsage(
        sum(usage["input_tokens"] for usage in usages),
        sum(usage["input_tokens_details"]["cached_tokens"] for usage in usages),
        sum(usage["output_tokens"] for usage in usages),
        sum(usage["output_tokens_details"]["reasoning_tokens"] for usage in usages),
    )


def _embedding_result(batch: Batch, line: Line, job: Job | None) -> Result:
    if job is None:
        missing = NotFound("The result was deleted before the batch ended.", code="deleted")
        return rejected(batch, line, missing), NO_TOKENS, []
    if job.state == "cancelled" and batch.ends_as is not None:
        return unfinished(batch, line), NO_TOKENS, [job.id]
    if job.state != "completed" or job.result is None:
        return answered(batch, line, line_embedding_error(job.error)), NO_TOKENS, [job.id]
    result = parse_result(job.result)
    answer = line_embeddings(orjson.loads(line.body), result)
    return answered(batch, line, answer), TokenUsage(result.prompt_tokens, 0, 0), [job.id]


def _store(attempt: Attempt, batch: Batch, results: Sequence[Result]) -> None:
    if not results:
        return
    ended = [result for result, _, _ in results]
    failed = sum(line.failed for line in ended)
    with attempt.database.batch() as connection:
        progress.lock(connection, attempt.job)
        lines.end(connection, batch, ended)
        progress.advance(
            connection,
            batch,
            completed=len(ended) - failed,
            failed=failed,
            usage=_sum([usage for _, usage, _ in results]),
        )
        job_deletion.delete_all_ended(connection, [job_id for _, _, ids in results for job_id in ids], batch.account_id)


def _sum(usages: Sequence[TokenUsage]) -> TokenUsage:
    return TokenUsage(
        sum(usage.input_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.reasoning_tokens for usage in usages),
    )


def end_unfinished(attempt: Attempt, batch: Batch) -> int:
    """End a set of the lines that have not begun, in a batch that is stopped. Returns how many lines."""
    with attempt.database.connection() as connection:
        next_lines = lines.waiting(connection, batch, 5 * SET)
    ended = [unfinished(batch, line) for line in next_lines]
    with attempt.database.batch() as connection:
        progress.lock(connection, attempt.job)
        lines.end(connection, batch, ended)
        progress.advance(connection, batch, begun=len(ended), failed=len(ended))
    return len(ended)
