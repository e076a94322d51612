"""`sangha audit money` on a real database."""

import orjson

from models.platform.database import Database
from pipelines.billing.audit.money import CHECKS
from tests.ops.commands import sangha

POSTING = """
INSERT INTO postings (account_id, kind, reference, debit, credit, currency, amount)
VALUES ('acct_1', 'usage', 'job_1', 'usage_unbilled', 'revenue', 'EUR', 0.5)
"""


def test_books_that_agree_exit_with_zero(installation: Database) -> None:
    result = sangha("audit", "money")

    assert result.exit_code == 0
    assert len(result.output.splitlines()) == len(CHECKS) + 1
    assert all(line.split()[0] == "ok" for line in result.output.splitlines())


def test_a_difference_is_printed_with_its_ids_and_exits_with_one(installation: Database) -> None:
    with installation.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
        connection.execute("INSERT INTO billing_details (account_id, currency) VALUES ('acct_1', 'EUR')")
        connection.execute(POSTING)

    result, as_json = sangha("audit", "money"), sangha("audit", "money", "--json")

    assert (result.exit_code, as_json.exit_code) == (1, 1)
    assert "usage_posting: job_1 of account acct_1: expected 0, found 0.5" in result.output
    *differences, summary = map(orjson.loads, as_json.output.splitlines())
    assert {"check": "usage_posting", "subject": "job_1", "account_id": "acct_1", "expected": "0",
            "found": "0.5"} in differences  # fmt: skip
    assert summary["differences"] == len(differences) > 1
    assert summary["by_check"]["usage_posting"] == 1
