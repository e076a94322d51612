"""Taking one's data along, and leaving for good."""

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import account_data
from models.jobs import jobs
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import InvalidRequest
from pipelines.accounts.deletion import close_account, delete_user
from web.api.job_object import job_object
from web.api.request import Request
from web.http.responses import json_response
from web.http.validation import Query, parse_query


class ConfirmErasure(Query):
    """The query of what can't be undone: what is to be erased, spelled out once more."""

    confirm: str = Field(max_length=320)


class ErasureObject(TypedDict):
    """That an erasure has begun. Whoever asked for it is already outside, and so can't follow its job."""

    object: str
    job_id: str


def export(request: Request) -> Response:
    """`POST /v1/account/export`: all data of the account as a file; the answer is the job that makes it."""
    account_id = request.caller.account_id
    job = NewJob("account.export", account_id, id=request.new_id("job"))
    with request.platform.database.transaction() as connection:
        enqueue(connection, job)
        made = jobs.read(connection, job.id, account_id)
    assert made is not None
    request.platform.queue.nudge()
    return json_response(job_object(made), 202)


def erase_account(request: Request) -> Response:
    """`DELETE /v1/account?confirm=<its id>`: erase the account and all that it holds; only what money needs stays."""
    _require_confirmation(request, request.caller.account_id, "the account's id")
    return _erasure_response(request, close_account(request.platform.database, request.caller, request.origin))


def erase_me(request: Request) -> Response:
    """`DELETE /v1/me?confirm=<the e-mail address>`: erase the person and the accounts that are theirs alone."""
    with request.platform.database.connection() as connection:
        address = account_data.email_of(connection, request.caller.user_id)
    _require_confirmation(request, address, "your e-mail address")
    return _erasure_response(request, delete_user(request.platform.database, request.caller, request.origin))


def _require_confirmation(request: Request, expected: str, what: str) -> None:
    if parse_query(request.query, ConfirmErasure).confirm.casefold() != expected.casefold():
        raise InvalidRequest(f"This can't be undone: give {what} as 'confirm'.", param="confirm", code="unconfirmed")


def _erasure_response(request: Request, job_id: str) -> Response:
    request.platform.queue.nudge()
    erasure: ErasureObject = {"object": "erasure", "job_id": job_id}
    return json_response(erasure, 202)
