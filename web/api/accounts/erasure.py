"""Export an account's data, and erase an account or a user."""

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import account_data, files
from models.accounts.ownership import Access
from models.jobs import jobs
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_no_unfinished, check_unfinished_jobs
from models.platform.errors import InvalidRequest
from pipelines.accounts.deletion import close_account, delete_user
from web.api.job_object import job_object
from web.api.request import Request
from web.http.queries import RequestQuery, parse_query
from web.http.responses import json_response


class ConfirmErasure(RequestQuery):
    """The query of an erasure: `confirm` repeats the id or the e-mail address of what is erased."""

    confirm: str = Field(max_length=320)


class ErasureObject(TypedDict):
    """An accepted erasure. The caller's credentials are invalid from now on, so that its job cannot be read."""

    object: str
    job_id: str


def export(request: Request) -> Response:
    """`POST /v1/account/export`: start a job that exports all data of the account to a file, one at a time.

    The file counts for the account's stored bytes until it is deleted or expires.
    """
    account_id, limits = request.caller.account_id, request.admission.limits
    job = NewJob("account.export", account_id, id=request.new_id("job"))
    with request.platform.database.transaction() as connection:
        check_unfinished_jobs(connection, account_id, limits)
        check_no_unfinished(connection, account_id, job.kind)
        files.check_stored_bytes(connection, account_id, limits)
        enqueue(connection, job)
        record = jobs.read(connection, job.id, Access.account(account_id))
    assert record is not None
    request.platform.queue.nudge(account_id)
    return json_response(job_object(record), 202)


def erase_account(request: Request) -> Response:
    """`DELETE /v1/account?confirm=<account id>`: erase the account and its data, except billing records."""
    _require_confirmation(request, request.caller.account_id, "the account's id")
    return _erasure_response(request, close_account(request.platform.database, request.caller, request.origin))


def erase_user(request: Request) -> Response:
    """`DELETE /v1/me?confirm=<e-mail address>`: erase the user, accounts without another member, and data in others.

    What the user owns in shared accounts is erased, with all exports of these accounts.
    """
    with request.platform.database.connection() as connection:
        email = account_data.email_of(connection, request.caller.user_id)
    _require_confirmation(request, email, "your e-mail address")
    return _erasure_response(request, delete_user(request.platform.database, request.caller, request.origin))


def _require_confirmation(request: Request, expected: str, description: str) -> None:
    if parse_query(request.query, ConfirmErasure).confirm.casefold() != expected.casefold():
        message = f"Invalid value for 'confirm': expected {description}. Erasure cannot be undone."
        raise InvalidRequest(message, param="confirm", code="unconfirmed")


def _erasure_response(request: Request, job_id: str) -> Response:
    request.platform.queue.nudge()
    erasure: ErasureObject = {"object": "erasure", "job_id": job_id}
    return json_response(erasure, 202)
