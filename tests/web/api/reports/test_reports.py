"""`/v1/reports`: who may have which report, what a request means, and how it ends."""

import csv
import io
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from models.accounts.accounts import Role
from models.platform.errors import InvalidRequest
from tests.web.api.reports.conftest import make_key
from tests.web.api_client import assert_error

OCTOBER = {"start": 1_790_805_600, "end": 1_793_487_600}  # in Berlin


def test_a_report_is_built_listed_read_and_downloaded(user, create_report, build_report):
    created = create_report(
        user, format="csv", interval="day", group_by=["model"], time_zone="Europe/Berlin", **OCTOBER
    )

    build_report(created["id"])

    report = user.request("GET", f"/v1/reports/{created['id']}").json()
    assert (created["status"], created["scope"], created["file_id"]) == ("queued", "account", None)
    assert (report["status"], report["rows"], report["start"]) == ("completed", 6, OCTOBER["start"])
    assert user.request("GET", "/v1/reports").json()["data"] == [report]
    content = user.request("GET", f"/v1/files/{report['file_id']}/content")
    assert content.headers["content-type"] == "text/csv; charset=utf-8"
    assert content.headers["content-disposition"].startswith('attachment; filename="sangha-usage-')
    assert len(content.content) == report["bytes"]
    assert len(list(csv.reader(io.StringIO(content.text)))) == 1 + report["rows"]


def test_the_object_has_the_request_and_the_progress_of_its_job(user, create_report, job_of, begin):
    asked = {"kind": "usage", "range": "last_month", "filters": {"model": ["default"]}}
    created = create_report(user, **asked)
    begin(job_of(created["id"])).report_progress(1, 3, note="writing", resume={"rows": 1})

    report = user.request("GET", f"/v1/reports/{created['id']}").json()

    assert (report["request"], report["status"]) == (asked, "in_progress")
    assert report["progress"] == {"done": 1, "total": 3, "note": "writing"}


def test_a_named_range_is_that_of_the_time_zone(user, create_report):
    report = create_report(user, range="last_month", time_zone="Pacific/Kiritimati")

    first, last = (datetime.fromtimestamp(report[name], ZoneInfo("Pacific/Kiritimati")) for name in ("start", "end"))
    assert (first.day, first.hour, last.day, last.hour) == (1, 0, 1, 0)
    assert last.month == first.month % 12 + 1


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"kind": "everything"}, "kind", "invalid_value"),
        ({"format": "xlsx"}, "format", "invalid_value"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "invalid_request"),
        ({"range": "next_month"}, "range", "invalid_value"),
        ({"range": "last_month", **OCTOBER}, "range", "invalid_request"),
        ({"start": 1}, "end", "missing_required_parameter"),
        ({"start": 2, "end": 1}, "start", "invalid_request"),
        ({"start": 0, "end": 400_000_000}, "start", "period_too_long"),
        ({"start": 0, "end": 9_000_000, "interval": "hour"}, "start", "period_too_long"),
        ({"range": "last_year", "interval": "hour"}, "range", "period_too_long"),
        ({"group_by": ["model", "model"]}, "group_by", "invalid_request"),
        ({"group_by": ["account"]}, "group_by", "invalid_request"),
        ({"filters": {"account": ["acct_1"]}}, "group_by", "invalid_request"),
        ({"kind": "revenue", "group_by": ["model"]}, "group_by", "invalid_request"),
        ({"kind": "memory", "filters": {"agent": ["clerk"]}}, "filters", "invalid_request"),
        ({"filters": {"model": []}}, "filters.model", "invalid_value"),
        ({"deliver_to": ["user_unknown"]}, "deliver_to", "invalid_request"),
    ],
)
def test_a_request_that_cannot_be_built_is_rejected(user, fields, param, code):
    answer = user.request("POST", "/v1/reports", json={"kind": "usage", **fields})

    assert_error(answer, 400, param=param, code=code)
    assert user.request("GET", "/v1/reports").json()["data"] == []


def test_a_report_that_cannot_be_built_has_the_reason(user, create_report, build_report):
    def read(connection, request):
        raise InvalidRequest("The report has more than 100 groups.", code="too_many_groups")

    report = create_report(user)
    with pytest.raises(Exception, match="more than 100 groups"):
        build_report(report["id"], read)


def test_a_repeated_request_starts_one_report(user):
    bodies = [
        user.request("POST", "/v1/reports", json={"kind": "usage"}, headers={"idempotency-key": "once"}).json()
        for _ in range(2)
    ]

    assert bodies[0]["id"] == bodies[1]["id"]
    assert len(user.request("GET", "/v1/reports").json()["data"]) == 1
    assert len(user.jobs()) == 1


def test_a_member_gets_only_their_own_data(user, add_member, create_report, build_report):
    member = add_member()
    whole, own, admins_own = create_report(user), create_report(member), create_report(user, scope="user")
    build_report(whole["id"])

    assert (whole["scope"], own["scope"]) == ("account", "user")
    assert_error(member.request("POST", "/v1/reports", json={"kind": "usage", "scope": "account"}), 403)
    assert_error(member.request("POST", "/v1/reports", json={"kind": "revenue"}), 403)
    assert [report["id"] for report in member.request("GET", "/v1/reports").json()["data"]] == [own["id"]]
    for other in (whole, admins_own):
        assert_error(member.request("GET", f"/v1/reports/{other['id']}"), 404)
        assert_error(member.request("DELETE", f"/v1/reports/{other['id']}"), 404)
    file_id = user.request("GET", f"/v1/reports/{whole['id']}").json()["file_id"]
    assert_error(member.request("GET", f"/v1/files/{file_id}/content"), 404)
    assert len(user.request("GET", "/v1/reports").json()["data"]) == 3


def test_the_query_of_a_members_report_has_the_member(user, add_member, create_report, database):
    member = add_member()
    reports = [create_report(user), create_report(member)]

    with database.connection() as connection:
        queries = [
            connection.execute("SELECT query FROM reports WHERE id = %s", (report["id"],)).fetchone()["query"]
            for report in reports
        ]

    assert [(query["account_id"], query["user_id"]) for query in queries] == [
        (user.caller.account_id, None),
        (user.caller.account_id, member.caller.user_id),
    ]


def test_a_former_admin_no_longer_reads_the_reports_of_the_account(add_member, create_report, database):
    admin = add_member(Role.ADMIN)
    report = create_report(admin)
    with database.connection() as connection:
        connection.execute("UPDATE memberships SET role = 'member' WHERE user_id = %s", (admin.caller.user_id,))

    assert_error(admin.request("GET", f"/v1/reports/{report['id']}"), 404)


def test_an_api_key_needs_the_scope_admin_for_the_account(user, create_report):
    reports = [
        user.request(
            "POST",
            "/v1/reports",
            json={"kind": "usage"},
            headers={"authorization": f"Bearer {make_key(user, *scopes)}"},
        ).json()
        for scopes in (["write"], ["write", "admin"])
    ]

    assert [report["scope"] for report in reports] == ["user", "account"]


def test_a_report_of_another_account_is_not_found(user, other_user, create_report, build_report):
    report = create_report(user)
    build_report(report["id"])

    for method in ("GET", "DELETE"):
        assert_error(other_user.request(method, f"/v1/reports/{report['id']}"), 404, param="report_id")
    assert other_user.request("GET", "/v1/reports").json()["data"] == []
    assert user.request("GET", f"/v1/reports/{report['id']}").status_code == 200


def test_a_deleted_report_has_no_file(user, create_report, build_report):
    report = create_report(user)
    build_report(report["id"])
    file_id = user.request("GET", f"/v1/reports/{report['id']}").json()["file_id"]

    deleted = user.request("DELETE", f"/v1/reports/{report['id']}").json()

    assert deleted == {"id": report["id"], "object": "report.deleted", "deleted": True}
    assert_error(user.request("GET", f"/v1/reports/{report['id']}"), 404)
    assert_error(user.request("GET", f"/v1/files/{file_id}"), 404)


def test_deleting_a_report_cancels_its_job(user, create_report):
    report = create_report(user)

    user.request("DELETE", f"/v1/reports/{report['id']}")

    assert [job["state"] for job in user.jobs()] == ["cancelled"]


def test_a_cancelled_job_cancels_its_report(user, create_report):
    report = create_report(user)

    user.request("POST", f"/v1/jobs/{report['job_id']}/cancel")

    assert user.request("GET", f"/v1/reports/{report['id']}").json()["status"] == "cancelled"


def test_reports_are_listed_by_kind_and_page_by_page(user, create_report):
    first, second, _ = create_report(user), create_report(user), create_report(user, kind="revenue")

    page = user.request("GET", "/v1/reports?kind=usage&limit=1").json()
    rest = user.request("GET", f"/v1/reports?kind=usage&after={page['last_id']}").json()

    assert ([report["id"] for report in page["data"]], page["has_more"]) == ([second["id"]], True)
    assert ([report["id"] for report in rest["data"]], rest["has_more"]) == ([first["id"]], False)
