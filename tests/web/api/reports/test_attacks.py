"""Names that attack the readers of a report, and members who ask for the usage of others."""

import csv
import io

import html5lib
import pytest

from models.platform.ids import new_id
from pipelines.reporting.build_report import build_report as read_report

EVIL = "=cmd|' /C calc'!A0<script>alert('1')</script>"

INSERT_USAGE = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, billed_user_id,
                           billed_key_id, billed_agent)
VALUES (%(job_id)s, %(account_id)s, %(model)s, 100, 0, 10, %(user_id)s, %(key_id)s, %(agent)s)
"""


@pytest.fixture
def add_usage(database):
    """`add_usage(user, …)` inserts the record of a job of the user."""

    def add_usage(user, model="default", key_id=None, agent=None):
        values = {"account_id": user.caller.account_id, "user_id": user.caller.user_id, "key_id": key_id}
        with database.connection() as connection:
            connection.execute(INSERT_USAGE, {**values, "job_id": new_id("job"), "model": model, "agent": agent})

    return add_usage


@pytest.fixture
def content(create_report, build_report):
    """`content(user, …)` → the file of a report of the account's records."""

    def content(user, **fields):
        report = create_report(user, range="this_year", **fields)
        build_report(report["id"], read_report)
        file_id = user.request("GET", f"/v1/reports/{report['id']}").json()["file_id"]
        return user.request("GET", f"/v1/files/{file_id}/content").content

    return content


def test_names_of_keys_and_models_do_nothing_in_a_spreadsheet_or_a_page(user, add_usage, content):
    key = user.request("POST", "/v1/api_keys", json={"name": EVIL, "scopes": ["read"]}).json()
    add_usage(user, model="+1+1", key_id=key["id"], agent="@SUM(A1)")
    asked = {"group_by": ["model", "key", "agent"]}

    (line,) = csv.DictReader(io.StringIO(content(user, format="csv", **asked).decode(), newline=""))
    page = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        content(user, format="html", **asked).decode()
    )

    assert (line["model"], line["key_name"], line["agent"]) == ("'+1+1", f"'{EVIL}", "'@SUM(A1)")
    assert (line["input_tokens"], line["jobs"]) == ("100", "1")
    assert list(page.iter("script")) == []
    assert EVIL in [cell.text for cell in page.iter("td")]


def test_a_member_reads_nothing_of_others_by_filters_and_groups(user, add_member, add_usage, content):
    member = add_member()
    add_usage(user, model="secret")
    add_usage(member)

    own = content(member, group_by=["user", "model"])
    filtered = content(member, group_by=["model"], filters={"user": [user.caller.user_id]})

    assert b"secret" not in own
    assert user.caller.user_id.encode() not in own
    assert b'"rows":[]' in filtered


def test_a_report_has_nothing_of_another_account(user, other_user, add_usage, content):
    add_usage(user, model="secret")

    assert b"secret" not in content(other_user, group_by=["model"])
    assert b"secret" in content(user, group_by=["model"])
