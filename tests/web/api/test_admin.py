"""`/admin`: what operators do with accounts, plans and dead jobs takes effect and is audited."""

from dataclasses import fields

import pytest

from models.accounts.plans import Limits
from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id
from tests.web.api_client import assert_error
from web.api.accounts.account import AccountLimits
from web.api.admin import LimitOverrides


@pytest.fixture
def dead_job(user, database) -> str:
    """The id of a dead job of the user's account."""
    job = NewJob("turn.run", user.caller.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute(
            "UPDATE jobs SET state = 'dead', finished_at = now(), traceback = 'it broke', error = '{}' WHERE id = %s",
            (job.id,),
        )
    return job.id


def audit_events(user) -> list[tuple[str, str]]:
    """Return the actions and targets of the account's audit events."""
    events = user.request("GET", "/v1/audit_events").json()["data"]
    return [(event["action"], event["target"]) for event in events]


def test_accounts_are_searched_by_id_name_and_email(operator, user, other_user, database):
    account_id = user.caller.account_id
    with database.connection() as connection:
        (row,) = connection.execute("SELECT email FROM users WHERE id = %s", (user.caller.user_id,))
        connection.execute("UPDATE accounts SET name = %s WHERE id = %s", (f"100% {account_id}_Inc", account_id))

    for search in (account_id, f"100% {account_id.upper()}_inc", row["email"][:-4].upper()):
        accounts = operator.request("GET", "/admin/accounts", params={"search": search}).json()["data"]
        assert [account["id"] for account in accounts] == [account_id], search
    no_match = operator.request("GET", "/admin/accounts", params={"search": f"%{account_id[-6:]}_Inc%"}).json()
    assert no_match["data"] == []
    first = operator.request("GET", "/admin/accounts?limit=1").json()
    second = operator.request("GET", f"/admin/accounts?limit=1&after={first['last_id']}").json()
    assert first["has_more"]
    assert first["last_id"] > second["last_id"]


def test_a_limit_override_applies_above_the_plan_until_it_is_removed(operator, user):
    path = f"/admin/accounts/{user.caller.account_id}"
    plan = operator.request("GET", path).json()["limits"]

    overridden = operator.request("PATCH", path, json={"limits": {"streams": 3, "tokens_per_month": 1000}}).json()
    removed = operator.request("PATCH", path, json={"limits": {"streams": None}}).json()

    assert overridden["limits"] == plan | {"streams": 3, "tokens_per_month": 1000}
    assert removed["overrides"] == {"tokens_per_month": 1000}
    assert removed["limits"] == plan | {"tokens_per_month": 1000}
    assert audit_events(user) == [("account.limits_changed", user.caller.account_id)] * 2


def test_a_changed_plan_applies_to_every_account_on_it(operator, user):
    path, plan_id = f"/admin/accounts/{user.caller.account_id}", new_id("plan")
    created = operator.request("PUT", f"/admin/plans/{plan_id}", json={"name": "Small", "limits": {"streams": 1}})
    assert created.status_code == 200, created.text
    assert operator.request("PATCH", path, json={"plan_id": plan_id}).json()["limits"]["streams"] == 1

    operator.request("PUT", f"/admin/plans/{plan_id}", json={"name": "Small", "limits": {"streams": 2}})

    account = operator.request("GET", path).json()
    assert (account["plan_id"], account["limits"]["streams"], account["limits"]["tokens_per_month"]) == (
        plan_id,
        2,
        None,
    )
    assert plan_id in [plan["id"] for plan in operator.request("GET", "/admin/plans").json()["data"]]
    assert [action for action, target in audit_events(operator) if target == plan_id] == ["plan.changed"] * 2


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("accounts/{}", {"plan_id": "nothing"}, 400, "plan_id"),
        ("accounts/{}", {"limits": {"requests_per_minute": 0}}, 400, "limits.requests_per_minute"),
        ("accounts/{}", {"limits": {"bytes": 1}}, 400, "limits.bytes"),
        ("accounts/{}", {"limits": {"streams": "many"}}, 400, "limits.streams"),
        ("accounts/nothing", {"limits": {"streams": 1}}, 404, "account_id"),
        ("plans/UPPER", {"name": "x", "limits": {}}, 400, "plan_id"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(operator, user, path, body, status, param):
    method = "PUT" if path.startswith("plans") else "PATCH"
    answer = operator.request(method, f"/admin/{path.format(user.caller.account_id)}", json=body)
    assert_error(answer, status, param=param)


def test_dead_jobs_are_listed_with_their_traceback_and_replayed(operator, user, dead_job):
    listed = operator.request("GET", "/admin/jobs?limit=100").json()["data"]  # other tests leave dead jobs too

    assert [(job["account_id"], job["traceback"]) for job in listed if job["id"] == dead_job] == [
        (user.caller.account_id, "it broke")
    ]
    assert operator.request("POST", f"/admin/jobs/{dead_job}/replay").json()["state"] == "queued"
    assert_error(operator.request("POST", f"/admin/jobs/{dead_job}/replay"), 409, code="not_dead")
    assert audit_events(user) == [("job.replayed", dead_job)]


def test_a_dead_job_is_discarded_once(operator, user, dead_job):
    assert operator.request("POST", f"/admin/jobs/{dead_job}/discard").json()["state"] == "failed"
    assert_error(operator.request("POST", f"/admin/jobs/{dead_job}/discard"), 409, code="not_dead")
    assert_error(operator.request("POST", "/admin/jobs/nothing/discard"), 404, param="job_id")
    assert audit_events(user) == [("job.discarded", dead_job)]


def test_a_former_operator_is_rejected_from_the_next_request_on(operator, database):
    assert operator.request("GET", "/admin/plans").status_code == 200
    with database.connection() as connection:
        connection.execute("UPDATE users SET operator = false WHERE id = %s", (operator.caller.user_id,))

    assert_error(operator.request("GET", "/admin/plans"), 403, code="operator_required")


def test_every_limit_is_in_the_request_and_the_response_schema():
    names = {limit.name for limit in fields(Limits)} - {"models"}  # of plans only

    assert set(LimitOverrides.model_fields) == names
    assert set(AccountLimits.__annotations__) == names
