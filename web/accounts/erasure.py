"""Taking one's data along, and leaving for good."""

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import account_data
from models.jobs import jobs
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import InvalidRequest
from pipelines.accounts.deletion import close_account, delete_user
from web.http.answers import json_answer
from web.http.validation import Query, parse_query
from web.jobs import job_object
from web.routing import Call


class Confirmation(Query):
    """The query of what can't be undone: what is to be erased, spelled out once more."""

    confirm: str = Field(max_length=320)


class Erasure(TypedDict):
    """That an erasure has begun. Whoever asked for it is already outside, and so can't follow its job."""

    object: str
    job_id: str


def export(call: Call) -> Response:
    """`POST /v1/account/export`: all data of the account as a file; the answer is the job that makes it."""
    account_id = call.caller.account_id
    job = NewJob("account.export", account_id, id=call.new_id("job"))
    with call.platform.database.transaction() as connection:
        enqueue(connection, job)
        made = jobs.read(connection, job.id, account_id)
    assert made is not None
    call.platform.queue.nudge()
    return json_answer(job_object(made), 202)


def erase_account(call: Call) -> Response:
    """`DELETE /v1/account?confirm=<its id>`: erase the account and all that it holds; only what money needs stays."""
    _confirmed(call, call.caller.account_id, "the account's id")
    return _begun(call, close_account(call.platform.database, call.caller, call.trail))


def erase_me(call: Call) -> Response:
    """`DELETE /v1/me?confirm=<the e-mail address>`: erase the person and the accounts that are theirs alone."""
    with call.platform.database.connection() as connection:
        address = account_data.address_of(connection, call.caller.user_id)
    _confirmed(call, address, "your e-mail address")
    return _begun(call, delete_user(call.platform.database, call.caller, call.trail))


def _confirmed(call: Call, expected: str, what: str) -> None:
    if parse_query(call.query, Confirmation).confirm.casefold() != expected.casefold():
        raise InvalidRequest(f"This can't be undone: give {what} as 'confirm'.", param="confirm", code="unconfirmed")


def _begun(call: Call, job_id: str) -> Response:
    call.platform.queue.nudge()
    return json_answer({"object": "erasure", "job_id": job_id}, 202)
