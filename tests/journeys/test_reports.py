"""An account uses the platform and has a report of it built: by a worker, over the object store, in every format."""

import csv
import email
import io
from email.policy import default
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from pypdf import PdfReader

from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

pytestmark = ON_REDIS

#: Turns of the account, each of 20 tokens.
TURNS = 5


@pytest.fixture
def used(stack: Installation, user: AccountOwner) -> AccountOwner:
    """An account that has run turns, and the workers that ran them and that build reports."""
    stack.start_worker("tokens=20,rate=0", "inference")
    stack.start_worker("", "reporting", "delivery")
    for _ in range(TURNS):
        answer = user.request("POST", "/v1/responses", json={"input": "hello"})
        assert answer.status_code == 200, answer.text
    return user


def build(user: AccountOwner, **fields: Any) -> tuple[dict[str, Any], bytes]:
    """Have a report built. Returns its object and its file."""
    answer = user.request("POST", "/v1/reports", json={"kind": "usage", "range": "today", **fields})
    assert answer.status_code == 202, answer.text
    path = f"/v1/reports/{answer.json()['id']}"

    def ended() -> bool:
        return user.request("GET", path).json()["status"] not in ("queued", "in_progress")

    wait_until(ended, timeout=30)
    report: dict[str, Any] = user.request("GET", path).json()
    assert report["status"] == "completed", report
    return report, user.request("GET", f"/v1/files/{report['file_id']}/content").content


def test_a_report_in_each_format_equals_the_usage_of_the_account(used: AccountOwner) -> None:
    usage = used.request("GET", "/v1/account/usage?group_by=day").json()["report"]["data"][0]
    asked = {"interval": "hour", "group_by": ["model", "user"], "time_zone": "Asia/Kolkata"}
    asked = {**asked, "range": "this_week"}

    report, content = build(used, **asked)
    table = orjson.loads(content)
    sums = {name: sum(row[name] for row in table["rows"]) for name in ("jobs", "input_tokens", "output_tokens")}

    assert sums == {name: usage[name] for name in sums}
    assert (usage["jobs"], usage["output_tokens"]) == (TURNS, TURNS * 20)
    assert sums == {name: table["totals"][name] for name in sums}
    assert report["rows"] == len(table["rows"])
    assert {row["user_name"] for row in table["rows"]} == {used.email}

    lines = list(csv.DictReader(io.StringIO(build(used, format="csv", **asked)[1].decode(), newline="")))
    assert sum(int(line["jobs"]) for line in lines) == TURNS
    parquet = pyarrow.parquet.read_table(io.BytesIO(build(used, format="parquet", **asked)[1]))
    assert sum(parquet["jobs"].to_pylist()) == TURNS
    page = build(used, format="html", **asked)[1].decode()
    assert "<svg" in page
    assert used.email in page
    pdf = PdfReader(io.BytesIO(build(used, format="pdf", **asked)[1]))
    assert "Page 1 of" in pdf.pages[0].extract_text()


def test_latency_errors_and_memory_are_reported(used: AccountOwner) -> None:
    latency = orjson.loads(build(used, kind="latency")[1])
    assert latency["totals"]["turns"] == TURNS
    assert latency["totals"]["first_token_p95"] > 0

    for kind in ("errors", "memory", "revenue"):
        report, content = build(used, kind=kind)
        assert orjson.loads(content)["kind"] == kind
        assert report["rows"] == len(orjson.loads(content)["rows"])


def test_a_report_is_sent_to_its_recipient(used: AccountOwner) -> None:
    me = used.request("GET", "/v1/me").json()["id"]

    report, content = build(used, format="pdf", interval="day", deliver_to=[me])

    folder = used.installation.settings.home / "mailbox"
    wait_until(
        lambda: any(report["file_id"].encode() in path.read_bytes() for path in folder.glob("*.eml")), timeout=30
    )
    sent = [email.message_from_bytes(path.read_bytes(), policy=default) for path in folder.glob("*.eml")]
    (message,) = [each for each in sent if report["file_id"] in each.get_body().get_content()]
    (attachment,) = message.iter_attachments()
    assert message["To"] == used.email
    assert attachment.get_content() == content
    recorded = used.request("GET", "/v1/events?type=report.completed").json()["data"]
    assert [event["data"] for event in recorded] == [{"id": report["id"], "file_id": report["file_id"]}]
