"""Customers, their usage, and what must be true of their books at any time."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from models.billing import billing_details, credits, invoices, postings
from models.billing.credit_notes import CreditNote
from models.billing.credits import Grant
from models.billing.invoice_lines import NewLine
from models.billing.invoices import Invoice
from models.billing.postings import leg
from models.platform.database import Connection, Database, fetch_all
from models.platform.ids import new_id
from pipelines.billing import credit_note, grants, invoicing
from pipelines.billing.audit.check import Difference
from pipelines.billing.audit.money import CHECKS, run_check
from pipelines.billing.credit_note import NewCreditNote, Refund

#: The end of the period that tests invoice.
PERIOD_END = datetime(2026, 3, 1, tzinfo=UTC)
PERIOD_START = datetime(2026, 2, 1, tzinfo=UTC)


def new_customer(database: Database, currency: str = "EUR", *, tax_rate: str = "0") -> str:
    """Insert an account with billing details. Returns its id."""
    account_id = new_id("acct")
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a customer')", (account_id,))
        billing_details.ensure(connection, account_id, currency)
        billing_details.set_tax(connection, account_id, name="VAT", rate=Decimal(tax_rate), note="")
    return account_id


RECORD = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, created_at,
                           billed_amount, billed_currency, billed_agent)
VALUES (%s, %s, %s, 10, 2, 5, %s, %s, %s, %s)
"""


def use(
    database: Database,
    account_id: str,
    amounts: Iterable[str | Decimal],
    *,
    model: str = "llama",
    agent: str | None = None,
    at: datetime = PERIOD_END - timedelta(days=1),
) -> list[str]:
    """Insert usage records of these costs with their postings. Returns the ids of their jobs."""
    jobs = []
    with database.transaction() as connection:
        details = billing_details.read(connection, account_id)
        for amount in map(Decimal, amounts):
            jobs.append(job_id := new_id("job"))
            connection.execute(RECORD, (job_id, account_id, model, at, amount, details.currency, agent))
            legs = leg("usage_unbilled", "revenue", amount)
            postings.post(connection, account_id, "usage", job_id, legs, currency=details.currency)
    return jobs


def give(database: Database, account_id: str, amount: str | Decimal, **options: Any) -> Grant:
    """Give a credit."""
    with database.transaction() as connection:
        return grants.give(connection, account_id, Decimal(amount), reason="welcome", **options)


def issue_fee(database: Database, account_id: str, amount: str = "10") -> Invoice:
    """Issue an invoice of a fee."""
    line = NewLine("fee", "a line", Decimal(amount))
    with database.transaction() as connection:
        return invoicing.issue(connection, account_id, reason="subscription", lines=[line])


PAYMENT = """
INSERT INTO payments (id, account_id, invoice_id, gateway, currency, amount, state)
VALUES (%s, %s, %s, 'test', %s, %s, 'succeeded')
"""


def pay(database: Database, account_id: str, invoice: Invoice, amount: str | Decimal | None = None) -> Invoice:
    """Receive a payment, as its settlement does. Returns the invoice afterwards."""
    amount = Decimal(amount) if amount else invoice.amount_due
    with database.transaction() as connection:
        payment_id = new_id("pay")
        connection.execute(PAYMENT, (payment_id, account_id, invoice.id, invoice.currency, amount))
        legs = leg("gateway", "receivable", amount)
        postings.post(connection, account_id, "payment", payment_id, legs, currency=invoice.currency)
        return invoices.apply_payment(connection, invoice.id, amount)


REFUND = """
INSERT INTO refunds (id, account_id, payment_id, credit_note_id, currency, amount, state)
VALUES (%s, %s, %s, %s, %s, %s, 'succeeded')
"""


def refund_at_once(connection: Connection, account_id: str, currency: str) -> Refund:
    """Return a refund that the gateway makes at once."""

    def refund(payment_id: str, amount: Decimal, note_id: str) -> None:
        refund_id = new_id("ref")
        connection.execute("UPDATE payments SET refunded = refunded + %s WHERE id = %s", (amount, payment_id))
        connection.execute(REFUND, (refund_id, account_id, payment_id, note_id, currency, amount))
        legs = leg("receivable", "gateway", amount)
        postings.post(connection, account_id, "refund", refund_id, legs, currency=currency)

    return refund


def credit(
    database: Database,
    account_id: str,
    invoice: Invoice,
    amount: str | Decimal | None = None,
    job_id: str | None = None,
) -> CreditNote:
    """Issue a credit note, whose refunds succeed at once."""
    new = NewCreditNote("a mistake", Decimal(amount) if amount else None, job_id)
    with database.transaction() as connection:
        refund = refund_at_once(connection, account_id, invoice.currency)
        return credit_note.issue(connection, invoice.id, account_id, new, refund)


def read_invoice(database: Database, invoice: Invoice) -> Invoice:
    """Return an invoice as it is now."""
    with database.connection() as connection:
        return invoices.read(connection, invoice.id, invoice.account_id)


def balance(connection: Connection, account_id: str, name: str) -> Decimal:
    """Return the balance of a ledger account of a customer with one currency."""
    found = [amount for (each, _), amount in postings.balances(connection, account_id).items() if each == name]
    assert len(found) < 2
    return found[0] if found else Decimal(0)


DUE = """
SELECT coalesce(sum(total - paid - credited + returned), 0) AS due,
       coalesce(min(total - paid - credited + returned), 0) AS least,
       coalesce(bool_and((state = 'open') = (total - paid - credited + returned > 0)), true) AS agree
FROM invoices WHERE account_id = %s AND state IN ('open', 'paid')
"""

REFUNDING = """
SELECT coalesce(sum(amount), 0) AS amount FROM refunds WHERE account_id = %s AND state = 'pending'
"""

# What is left of the grants, and top-ups that are not paid yet.
CREDITS = """
SELECT (SELECT coalesce(sum(amount - drawn - refunded), 0) FROM credit_grants
        WHERE account_id = %(id)s AND expired_at IS NULL)
     + (SELECT coalesce(sum(subtotal - credited), 0) FROM invoices
        WHERE account_id = %(id)s AND reason = 'top_up' AND state IN ('open', 'uncollectible')) AS credits
"""

DRAWN = """
SELECT grants.id, drawn, coalesce((SELECT sum(amount) FROM credit_draws WHERE grant_id = grants.id), 0) AS draws
FROM credit_grants AS grants WHERE account_id = %s
"""


def check_books(database: Database, account_id: str) -> None:
    """Assert what must be true of a customer's ledger, invoices, usage and credits at any time."""
    with database.transaction() as connection:
        details = billing_details.read(connection, account_id)
        balances = postings.balances(connection, account_id)
        assert sum(balances.values()) == 0
        due, least, agree = fetch_all(connection, DUE, (account_id,))[0].values()
        assert least >= 0
        assert agree, "an invoice is open exactly if something is due"
        refunding = fetch_all(connection, REFUNDING, (account_id,))[0]["amount"]
        assert balance(connection, account_id, "receivable") == due - refunding
        assert balance(connection, account_id, "usage_unbilled") == credits.unbilled_usage(connection, details)
        assert (
            -balance(connection, account_id, "credits")
            == fetch_all(connection, CREDITS, {"id": account_id})[0]["credits"]
        )
        for row in fetch_all(connection, DRAWN, (account_id,)):
            assert row["drawn"] == row["draws"]
        assert not audit(connection, account_id)


#: Checks about rows that these tests do not have: usage is inserted without prices, and payments without a gateway.
LEFT_OUT = ("usage_price", "spending", "spending_scope", "gateway_payment")


def audit(connection: Connection, account_id: str) -> list[Difference]:
    """Return the differences that `sangha audit money` finds in the account's books."""
    checks = [check for check in CHECKS if check.name not in LEFT_OUT]
    found = [difference for check in checks for difference in run_check(connection, check)]
    return [difference for difference in found if difference.account_id == account_id]


RESET_SELLER = """
UPDATE sellers SET name = 'Sangha', address = '', email = '', tax_id = '', note = '', default_currency = 'USD',
    invoice_prefix = 'INV-', credit_note_prefix = 'CN-', payment_days = DEFAULT, retry_days = DEFAULT
WHERE id = 'default'
"""


def reset_seller(database: Database) -> None:
    """Give the seller of the shared database the values of a new installation: other tests change them."""
    with database.connection() as connection:
        connection.execute(RESET_SELLER)
