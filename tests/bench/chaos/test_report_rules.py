"""Given reports that a client has received, when they are checked, then each broken guarantee is reported."""

from dataclasses import replace

import pytest

from bench.chaos.report_rules import check, check_received, check_sums
from bench.chaos.transcripts import ClientTranscript
from tests.bench.chaos.conftest import FinishedFleet
from tests.bench.chaos.test_checker import corrupted


def counts(jobs):
    return {"jobs": jobs, "input_tokens": 10 * jobs, "cached_tokens": 0, "output_tokens": 5 * jobs}


def report(jobs, *, status="completed", rows=None):
    table = {"totals": counts(jobs), "rows": [counts(jobs)] if rows is None else rows}
    final = {"status": status, "error": None, "table": table}
    return ClientTranscript("report", "reportclient-09", "acct_1", "a key", {}, 0.0, final=final)


IN_THE_END = {("acct_1", "EUR"): counts(2), ("acct_1", ""): counts(1), ("acct_2", ""): counts(9)}


def test_whole_reports_that_grow_are_no_violation():
    reports = [report(0, rows=[]), report(3, rows=[counts(1), counts(2)]), report(3)]

    assert list(check_received(reports, IN_THE_END)) == []


@pytest.mark.parametrize(
    ("reports", "rule"),
    [
        ([report(1, status="failed")], "ends"),
        ([report(2, rows=[counts(1)])], "reports"),
        ([report(2), report(1)], "reports"),
        ([report(4)], "reports"),
    ],
    ids=["a failed report", "rows without their total", "less than before", "more than there is in the end"],
)
def test_broken_report_is_a_violation(reports, rule):
    assert {violation.rule for violation in check_received(reports, IN_THE_END)} == {rule}


def test_report_without_its_file_is_a_violation():
    without = report(1)
    final = {**without.final, "table": {}}

    assert [each.rule for each in check_received([replace(without, final=final)], IN_THE_END)] == ["ends"]


def test_later_report_may_have_less_after_lost_commits():
    assert list(check_received([report(2), report(1)], IN_THE_END, lost_commits=True)) == []


def test_sums_of_a_finished_fleet_equal_its_records(finished: FinishedFleet):
    assert [str(violation) for violation in check(finished.database, finished.transcripts)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_quarters SET output_tokens = output_tokens + 1",
        "UPDATE usage_quarters SET jobs = jobs + 1",
        "DELETE FROM usage_quarters",
    ],
)
def test_altered_sums_are_a_violation(finished: FinishedFleet, statement: str):
    list(check(finished.database, finished.transcripts))

    with corrupted(finished, statement) as connection:
        violations = list(check_sums(connection, "now"))

    assert {violation.rule for violation in violations} == {"reports"}
