"""Fixtures that build the reports of requests, without a queue."""

from functools import partial

import pytest

from models.accounts.accounts import Caller, Role
from models.jobs.jobs import NewJob
from models.platform.ids import new_id
from pipelines.reporting import build
from tests.pipelines.conftest import begin, settle
from tests.pipelines.reporting.report_tables import table
from tests.web.api_client import ApiUser

__all__ = ["begin", "settle"]


@pytest.fixture
def build_report(api, begin, settle, job_of):
    """`build_report(id)` runs the job of a report with a table of the tests, or with `read` in place of it."""

    def build_report(report_id, read=lambda connection, request: table(3)):
        platform = api.app.state.platform
        attempt = begin(job_of(report_id))
        run = partial(build.run, platform.objects, platform.settings.home / "fonts", read)
        settle(attempt, run(attempt))

    return build_report


@pytest.fixture
def job_of(database):
    """`job_of(report_id)` → the job of a report."""

    def job_of(report_id):
        with database.connection() as connection:
            row = connection.execute("SELECT job_id, account_id FROM reports WHERE id = %s", (report_id,)).fetchone()
        return NewJob("report.build", row["account_id"], {"report_id": report_id}, id=row["job_id"])

    return job_of


@pytest.fixture
def add_member(api, database, user):
    """`add_member(role)` → a user in the account of `user` with a role."""

    def add_member(role=Role.MEMBER):
        member = ApiUser(api, database)
        account_id = user.caller.account_id
        with database.connection() as connection:
            connection.execute("DELETE FROM accounts WHERE id = %s", (member.caller.account_id,))
            connection.execute(
                "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, %s)",
                (account_id, member.caller.user_id, role),
            )
        return as_member(member, account_id, role)

    return add_member


def as_member(member, account_id, role):
    """Return the user with a token for another account."""
    member.caller = Caller(member.caller.user_id, account_id, role, session_id=member.caller.session_id)
    member.token = member.client.app.state.platform.tokens.issue(member.caller)
    return member


@pytest.fixture
def create_report():
    """`create_report(user, …)` → the object of a new report."""

    def create_report(user, **fields):
        answer = user.request("POST", "/v1/reports", json={"kind": "usage", **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()

    return create_report


def make_key(user, *scopes):
    """Create an API key of the user; returns its secret."""
    body = {"name": new_id("key"), "scopes": scopes}
    return user.request("POST", "/v1/api_keys", json=body).json()["key"]
