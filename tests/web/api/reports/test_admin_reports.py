"""`/admin/reports`: reports across accounts, which only operators have."""

import pytest

from tests.web.api_client import assert_error


@pytest.fixture
def report(operator):
    body = {"kind": "revenue", "range": "last_month", "group_by": ["account"], "format": "json"}
    answer = operator.request("POST", "/admin/reports", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_an_operator_gets_a_report_of_all_accounts(operator, report, build_report):
    before = operator.request("GET", f"/admin/reports/{report['id']}/content")
    build_report(report["id"])

    built = operator.request("GET", f"/admin/reports/{report['id']}").json()
    content = operator.request("GET", f"/admin/reports/{report['id']}/content")

    assert_error(before, 404, param="report_id")
    assert (built["status"], built["request"]["group_by"]) == ("completed", ["account"])
    assert content.headers["content-type"] == "application/json"
    assert len(content.json()["rows"]) == built["rows"]
    assert report["id"] in [each["id"] for each in operator.request("GET", "/admin/reports").json()["data"]]


def test_the_query_of_an_operator_has_no_account(operator, report, database):
    with database.connection() as connection:
        row = connection.execute("SELECT account_id, query FROM reports WHERE id = %s", (report["id"],)).fetchone()

    assert (row["account_id"], row["query"]["account_id"], row["query"]["user_id"]) == ("platform", None, None)


def test_a_report_of_operators_is_not_one_of_their_account(operator, user, report, build_report):
    build_report(report["id"])
    file_id = operator.request("GET", f"/admin/reports/{report['id']}").json()["file_id"]

    for each in (operator, user):
        assert_error(each.request("GET", f"/v1/reports/{report['id']}"), 404)
        assert_error(each.request("GET", f"/v1/files/{file_id}"), 404)
    assert_error(user.request("GET", f"/admin/reports/{report['id']}"), 403, code="operator_required")


def test_a_report_of_an_account_is_not_one_of_operators(operator, user, create_report):
    report = create_report(user)

    assert_error(operator.request("GET", f"/admin/reports/{report['id']}"), 404)
    assert_error(operator.request("DELETE", f"/admin/reports/{report['id']}"), 404)


def test_only_operators_are_recipients(operator, user):
    def create(user_id):
        return operator.request("POST", "/admin/reports", json={"kind": "usage", "deliver_to": [user_id]})

    assert create(operator.caller.user_id).json()["deliver_to"] == [operator.caller.user_id]
    for other in (user.caller.user_id, "user_unknown"):
        assert_error(create(other), 400, param="deliver_to")


def test_a_deleted_report_has_no_file(operator, report, build_report):
    build_report(report["id"])

    assert operator.request("DELETE", f"/admin/reports/{report['id']}").json()["deleted"] is True
    assert_error(operator.request("GET", f"/admin/reports/{report['id']}/content"), 404)
