"""Decisions on calls that turns wait for: once, by the person whose turn it is or by an admin, and then it goes on."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from models.accounts.accounts import Role, Scope
from tests.web.api_client import assert_error
from tests.web.approval_requests import ARGUMENTS, request_approval
from tests.web.principals import Principals


@pytest.fixture
def people(api, database, settings):
    """The members of an account, who send requests: `people.request("member", …)`."""
    principals = Principals(api, database, settings)
    yield principals
    principals.delete(database)


@pytest.fixture
def waiting(people, database):
    """`waiting(person)` → an approval that a turn of the person waits for."""

    def waiting(person="member", **options):
        body = {"input": "hello", "background": True}
        response = people.request(person, "POST", "/v1/responses", json=body).json()
        return request_approval(database, people.account_id, response["id"], **{"waits": True, **options})

    return waiting


def decide(people, person, approval, **body):
    return people.request(person, "POST", f"/v1/approvals/{approval.id}", json={"approve": True, **body})


def gate(database, approval):
    with database.connection() as connection:
        return connection.execute(
            "SELECT state, run_at <= now() AS due FROM jobs WHERE id = %s", (approval.gate_job_id,)
        ).fetchone()


@pytest.mark.parametrize(("approve", "status"), [(True, "approved"), (False, "denied")])
def test_a_decision_is_stored_and_makes_the_job_due_that_the_turn_waits_for(people, database, waiting, approve, status):
    approval = waiting()
    assert gate(database, approval) == {"state": "scheduled", "due": False}

    decided = decide(people, "member", approval, approve=approve, text="because").json()

    assert (decided["status"], decided["text"]) == (status, "because")
    assert decided["decided_by"] == people.user_ids["member"]
    assert decided["decided_at"] >= decided["created_at"]
    assert gate(database, approval) == {"state": "queued", "due": True}
    audit = people.request("owner", "GET", f"/v1/audit_events?action=approval.{status}").json()["data"]
    assert [event["target"] for event in audit] == [approval.id]


def test_of_people_who_decide_at_once_one_succeeds(people, waiting):
    approval = waiting()
    principals = [("member", True), ("owner", False), ("admin", False)] * 3

    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda each: decide(people, each[0], approval, approve=each[1]), principals))

    stored = people.request("member", "GET", f"/v1/approvals/{approval.id}").json()
    winner = next(name for name, id_ in people.user_ids.items() if id_ == stored["decided_by"])
    for (person, _), answer in zip(principals, answers, strict=True):
        if person == winner:
            assert answer.status_code == 200, "the same decision of the same person changes nothing"
        else:
            message = assert_error(answer, 409, code="approval_decided")
            assert stored["decided_by"] in message


def test_a_decision_is_not_changed_afterwards(people, waiting):
    approval = waiting()
    decide(people, "member", approval)

    assert decide(people, "member", approval).status_code == 200
    assert_error(decide(people, "member", approval, approve=False), 409, code="approval_decided")
    assert_error(decide(people, "member", approval, text="really"), 409, code="approval_decided")
    assert_error(decide(people, "owner", approval), 409, code="approval_decided")


def test_members_see_and_decide_their_own_and_admins_all_of_the_account(people, waiting):
    own, others = waiting("member"), waiting("owner")

    listed = {
        person: {each["id"] for each in people.request(person, "GET", "/v1/approvals").json()["data"]}
        for person in ("member", "owner", "admin", "other owner")
    }

    assert listed == {
        "member": {own.id},
        "owner": {own.id, others.id},
        "admin": {own.id, others.id},
        "other owner": set(),
    }
    assert people.request("admin", "GET", f"/v1/approvals/{own.id}").json()["arguments"] == ARGUMENTS
    assert_error(decide(people, "member", others), 404, code="not_found")
    assert_error(decide(people, "other owner", own), 404, code="not_found")
    assert decide(people, "admin", own).status_code == 200


def test_an_admin_does_not_read_the_arguments_of_a_call_that_only_the_next_turn_decides(people, waiting):
    approval = waiting("member", waits=False)

    as_admin = people.request("admin", "GET", f"/v1/approvals/{approval.id}").json()
    as_member = people.request("member", "GET", f"/v1/approvals/{approval.id}").json()

    assert (as_admin["arguments"], as_admin["decided_in"]) == (None, "next_turn")
    assert as_member["arguments"] == ARGUMENTS
    assert_error(decide(people, "admin", approval), 409, code="approval_of_next_turn")


@pytest.mark.parametrize("scope", [Scope.READ, Scope.INFERENCE])
def test_a_key_needs_the_scope_write_to_decide(people, waiting, scope):
    assert_error(decide(people, f"{scope} key", waiting("owner")), 403, code="insufficient_scope")


def test_a_removed_member_decides_nothing(people, waiting, database):
    approval = waiting()
    with database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (people.user_ids[Role.MEMBER],))

    assert decide(people, "member", approval).status_code == 401
    assert decide(people, "owner", approval).status_code == 200


def test_an_expired_approval_cannot_be_decided(people, waiting, database):
    approval = waiting(expires_in=-1)

    assert_error(decide(people, "member", approval), 409, code="approval_expired")
    assert people.request("member", "GET", f"/v1/approvals/{approval.id}").json()["status"] == "expired"
    assert gate(database, approval)["due"], "the turn goes on without the call"


def test_the_approval_of_a_cancelled_turn_cannot_be_decided(people, waiting):
    approval = waiting()
    people.request("member", "POST", f"/v1/jobs/{approval.gate_job_id}/cancel")

    assert_error(decide(people, "member", approval), 409, code="approval_cancelled")


def test_approvals_are_listed_by_status_and_in_pages(people, waiting):
    first, second, third, expired = waiting(), waiting(), waiting(), waiting(expires_in=-1)
    decide(people, "member", second)

    def page(query):
        answer = people.request("member", "GET", f"/v1/approvals?{query}").json()
        return [each["id"] for each in answer["data"]], answer["has_more"]

    assert page("status=pending") == ([third.id, first.id], False)
    assert page("status=approved") == ([second.id], False)
    assert page("status=expired") == ([expired.id], False)
    assert page(f"response_id={first.response_id}") == ([first.id], False)
    assert page("limit=3") == ([expired.id, third.id, second.id], True)
    assert page(f"limit=3&after={second.id}") == ([first.id], False)


def test_the_person_whose_turn_waits_gets_one_email_without_the_arguments(people, waiting, mailbox, database):
    with database.connection() as connection:
        row = connection.execute("SELECT email FROM users WHERE id = %s", (people.user_ids["member"],)).fetchone()
    approval = waiting(agent={"name": "clerk"})

    (message,) = mailbox.deliver(row["email"])

    assert message["Subject"] == 'The agent "clerk" waits for your approval'
    text = message.get_content()
    assert f"/v1/approvals/{approval.id}" in text
    assert "docs send" in text
    assert "text" not in text, "arguments may contain secrets"
    assert mailbox.deliver(row["email"]) == []


def test_no_email_is_sent_for_what_is_decided(people, waiting, mailbox, database):
    with database.connection() as connection:
        row = connection.execute("SELECT email FROM users WHERE id = %s", (people.user_ids["member"],)).fetchone()
    decide(people, "member", waiting())

    assert mailbox.deliver(row["email"]) == []
