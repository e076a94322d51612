"""`/v1/batches`: create, list, read and cancel batches, which run the requests in a file in the background."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.batches import batches
from models.batches.batches import Batch, BatchStatus
from models.platform.errors import NotFound
from models.platform.texts import truncate
from pipelines.batches.requested_batches import batch_object, cancel_batch, create_batch
from pipelines.requests.content_types import Id
from pipelines.requests.turn_request import Metadata
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.api.turns.request_body import parse_body
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


class OutputExpiresAfter(RequestBody):
    """When the output and error files expire: `seconds` after their creation, between an hour and 30 days."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class CreateBatch(RequestBody):
    """The body of `POST /v1/batches`. `completion_window` is a time such as `24h`, from `1m` to `14d`."""

    input_file_id: Id
    endpoint: Annotated[str, Field(max_length=64)]
    completion_window: Annotated[str, Field(max_length=16)]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiresAfter | None = None


class BatchError(TypedDict):
    """Why a batch was not begun. `line` is that of the input file, from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(TypedDict):
    """The errors that the validation of the input file has found."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(TypedDict):
    """How many requests the file has, and how many of them have ended in which way."""

    total: int
    completed: int
    failed: int


class BatchObject(TypedDict):
    """A batch, in the format of OpenAI's API, with the id of its job. Times are in Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: dict[str, Any]
    metadata: dict[str, str]
    job_id: str


def create(request: Request) -> Response:
    """`POST /v1/batches`: create a batch from a file of requests, with the purpose `batch`.

    Each request runs in the background at the price of the class `batch`, and is rejected or answered as over HTTP. The
    output file has a line for each answer, and the error file one for each error.
    """
    body = parse_body(request, CreateBatch)
    batch = create_batch(
        request.platform.database,
        request.caller,
        request.allowance.limits,
        batch_id=request.new_id("batch"),
        job_id=request.new_id("job"),
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        output_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(batch_object(batch))


def list_batches(request: Request) -> Response:
    """`GET /v1/batches`: list the caller's batches, for an admin those of the account, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = batches.page(connection, Access.managed(request.caller), after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, batch_object)


def retrieve(request: Request) -> Response:
    """`GET /v1/batches/{id}`: read a batch, with the number of its requests that have ended."""
    return json_response(batch_object(_read(request)))


def cancel(request: Request) -> Response:
    """`POST /v1/batches/{id}/cancel`: cancel a batch. What has been answered by then is in its output file."""
    access = Access.managed(request.caller)
    batch = cancel_batch(request.platform.database, request.path_params["batch_id"], access)
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(batch_object(batch))


def _read(request: Request) -> Batch:
    """Read the batch that the path names. Raises NotFound."""
    batch_id = request.path_params["batch_id"]
    with request.platform.database.connection() as connection:
        batch = batches.read(connection, batch_id, Access.managed(request.caller))
    if batch is None:
        raise NotFound(f"Batch with id '{truncate(batch_id)}' not found.", param="batch_id")
    return batch
