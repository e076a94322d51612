"""Chaos runs audit the books."""

from bench.chaos import money_rules
from models.billing.prices import NewPrice, add_price
from models.jobs.jobs import NewJob, enqueue

RECORD = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, created_at)
VALUES (%s, 'acct_1', 'm', 1, 0, 0, now() + interval '2 minutes')
"""


def test_usage_without_a_posting_is_a_violation(empty_database):
    # Given a job of a billed account that was not posted
    with empty_database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name, billed_since) VALUES ('acct_1', 'a test', '2026-01-01')")
        connection.execute("INSERT INTO billing_details (account_id, currency) VALUES ('acct_1', 'EUR')")
        add_price(connection, NewPrice("m", "EUR", money_rules.PRICE, money_rules.PRICE))
    assert list(money_rules.check(empty_database)) == []
    job = NewJob("turn.run", "acct_1")
    with empty_database.transaction() as connection:
        enqueue(connection, job)
        connection.execute(RECORD, (job.id,))

    (violation,) = money_rules.check(empty_database)

    assert (violation.rule, violation.subject) == ("money", f"{job.id} of acct_1")
