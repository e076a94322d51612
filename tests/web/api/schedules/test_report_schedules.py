"""`work.kind: report` of schedules: the report of the range before each firing, within the creator's rights."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from models.accounts.accounts import Role
from models.schedules import schedules
from pipelines.schedules.firing import fire
from tests.web.api.reports.conftest import add_member, make_key
from tests.web.api_client import assert_error

__all__ = ["add_member"]

MONTHLY = {"type": "cron", "expression": "0 6 1 * *", "time_zone": "Europe/Berlin"}
REPORT = {"kind": "usage", "range": "last_month", "interval": "day", "format": "csv"}

KINDS = ["report", "operator_report"]

#: Six o'clock on the 1st in Berlin, at which the clock of UTC shows another hour than in summer.
FIRST = datetime(2026, 11, 1, 6, tzinfo=ZoneInfo("Europe/Berlin"))


def create(user, report=REPORT, **work):
    body = {"name": "monthly", "trigger": MONTHLY, "work": {"kind": "report", "report": report, **work}}
    return user.request("POST", "/v1/schedules", json=body)


@pytest.fixture
def fire_at(database, settings):
    """`fire_at(schedule_id, time)` fires a schedule as if it were that time, and returns its firing."""

    def fire_at(schedule, time):
        with database.transaction() as connection:
            schedules.set_next_fire(connection, schedule["id"], time, time)
            (due,) = [each for each in schedules.list_due(connection, KINDS, 100, time) if each.id == schedule["id"]]
        return fire(database, settings, due, time)

    return fire_at


def test_a_monthly_report_has_the_month_before_its_firing(user, fire_at):
    created = create(user, {**REPORT, "deliver_to": [user.caller.user_id]})
    schedule = created.json()

    fired = fire_at(schedule, FIRST)

    (report,) = user.request("GET", "/v1/reports").json()["data"]
    assert schedule["work"]["report"] == {**REPORT, "deliver_to": [user.caller.user_id]}
    assert (report["schedule_id"], report["job_id"]) == (schedule["id"], fired.started.job_id)
    assert (report["scope"], report["format"], report["deliver_to"]) == ("account", "csv", [user.caller.user_id])
    # Then the months are those of the schedule's zone
    assert report["time_zone"] == "Europe/Berlin"
    assert datetime.fromtimestamp(report["start"], UTC) == datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert datetime.fromtimestamp(report["end"], UTC) == datetime(2026, 10, 31, 23, tzinfo=UTC)


def test_a_firing_that_is_late_has_the_range_before_the_time_that_it_is_for(user, fire_at, database, settings):
    schedule = create(user).json()
    with database.transaction() as connection:
        schedules.set_next_fire(connection, schedule["id"], FIRST, FIRST)
        late = FIRST.replace(month=12, day=20)
        (due,) = [each for each in schedules.list_due(connection, ["report"], 100, late) if each.id == schedule["id"]]

    fire(database, settings, due, late)

    (report,) = user.request("GET", "/v1/reports").json()["data"]
    # Then the last time that was missed is made up for: that of 1 December
    assert datetime.fromtimestamp(report["end"], ZoneInfo("Europe/Berlin")).isoformat() == "2026-12-01T00:00:00+01:00"


def test_a_former_admin_gets_no_report_of_the_account(add_member, fire_at, database):
    admin = add_member(Role.ADMIN)
    schedule = create(admin).json()
    with database.connection() as connection:
        connection.execute("UPDATE memberships SET role = 'member' WHERE user_id = %s", (admin.caller.user_id,))

    assert fire_at(schedule, FIRST).started is None

    last = admin.request("GET", f"/v1/schedules/{schedule['id']}").json()["last_firing"]
    assert (last["status"], last["error"]["code"]) == ("refused", "forbidden")


def test_a_schedule_of_a_member_has_their_own_data(add_member, fire_at):
    member = add_member()
    assert_error(create(member, {**REPORT, "scope": "account"}), 403, param="work.report")
    schedule = create(member).json()

    fire_at(schedule, FIRST)

    (report,) = member.request("GET", "/v1/reports").json()["data"]
    assert (report["scope"], report["user_id"]) == ("user", member.caller.user_id)


def test_a_key_without_the_scope_admin_schedules_reports_of_its_user_only(user, fire_at):
    key = make_key(user, "inference", "write")
    body = {"name": "monthly", "trigger": MONTHLY, "work": {"kind": "report", "report": REPORT}}
    schedule = user.request("POST", "/v1/schedules", json=body, headers={"authorization": f"Bearer {key}"}).json()

    fire_at(schedule, FIRST)

    assert [report["scope"] for report in user.request("GET", "/v1/reports").json()["data"]] == ["user"]


@pytest.mark.parametrize(
    ("report", "param", "code"),
    [
        (None, "work.report", "missing_required_parameter"),
        ({"kind": "usage"}, "work.report.range", "missing_required_parameter"),
        ({"kind": "usage", "start": 1, "end": 2}, "work.report.start", "unsupported_parameter"),
        ({**REPORT, "time_zone": "Mars"}, "work.report.time_zone", "invalid_request"),
        ({**REPORT, "deliver_to": ["user_unknown"]}, "work.report.deliver_to", "invalid_request"),
        ({**REPORT, "format": "xlsx"}, "work.report.format", "invalid_value"),
    ],
)
def test_a_report_that_cannot_be_scheduled_is_rejected(user, report, param, code):
    assert_error(create(user, report), 400, param=param, code=code)


def test_work_has_only_the_fields_of_its_kind(user):
    body = {"name": "a test", "trigger": MONTHLY}
    for work, param in (
        ({"kind": "report", "report": REPORT, "space": "alice"}, "work.space"),
        ({"kind": "report", "report": REPORT, "request": {"input": "hello"}}, "work.request"),
        ({"kind": "meditation", "report": REPORT}, "work.report"),
        ({"kind": "turn", "request": {"input": "hello"}, "report": REPORT}, "work.report"),
    ):
        answer = user.request("POST", "/v1/schedules", json={**body, "work": work})
        assert_error(answer, 400, param=param, code="unknown_parameter")


ACROSS_ACCOUNTS = {"kind": "usage", "range": "last_month", "group_by": ["account"], "format": "csv"}


def create_across_accounts(user, **fields):
    return create(user, {**ACROSS_ACCOUNTS, **fields}, kind="operator_report")


def test_an_operator_schedules_a_report_across_accounts(operator, fire_at):
    deliver_to = [operator.caller.user_id]
    schedule = create_across_accounts(operator, deliver_to=deliver_to).json()
    assert schedule["work"]["kind"] == "operator_report"

    fired = fire_at(schedule, FIRST)

    reports = operator.request("GET", "/admin/reports").json()["data"]
    (report,) = [each for each in reports if each["schedule_id"] == schedule["id"]]
    assert (report["job_id"], report["deliver_to"]) == (fired.started.job_id, deliver_to)
    assert (report["time_zone"], report["request"]["group_by"]) == ("Europe/Berlin", ["account"])
    assert operator.request("GET", "/v1/reports").json()["data"] == []


def test_only_operators_schedule_reports_across_accounts(user, operator, fire_at, database):
    # Given one who is an operator, and one who is not
    assert_error(create_across_accounts(user), 403, param="work.report", code="operator_required")
    key = {"authorization": f"Bearer {make_key(operator, 'inference', 'admin')}"}
    body = {"name": "monthly", "trigger": MONTHLY, "work": {"kind": "operator_report", "report": ACROSS_ACCOUNTS}}
    assert_error(operator.client.post("/v1/schedules", json=body, headers=key), 403, code="operator_required")
    schedule = create_across_accounts(operator).json()
    # When the operator no longer is one
    with database.connection() as connection:
        connection.execute("UPDATE users SET operator = false WHERE id = %s", (operator.caller.user_id,))
    # Then the schedule is refused
    assert fire_at(schedule, FIRST).started is None
    last = operator.request("GET", f"/v1/schedules/{schedule['id']}").json()["last_firing"]
    assert (last["status"], last["error"]["code"]) == ("refused", "operator_required")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scope": "account"}, "work.report.scope"),
        ({"deliver_to": ["user_unknown"]}, "work.report.deliver_to"),
        ({"range": None}, "work.report.range"),
    ],
)
def test_a_report_across_accounts_that_cannot_be_scheduled_is_rejected(operator, fields, param):
    assert_error(create_across_accounts(operator, **fields), 400, param=param)
