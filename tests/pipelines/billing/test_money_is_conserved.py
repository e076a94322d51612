"""No sequence of invoices, credits, payments and credit notes creates or destroys a minor unit."""

from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.billing import invoice_states, invoices, postings, usage_lines
from models.billing.billing_details import ensure
from models.billing.currencies import minor_unit, rounded
from models.billing.invoice_lines import NewLine
from models.platform.errors import Conflict, InvalidRequest
from pipelines.billing import draft, grants, invoicing
from tests.pipelines.billing.books import PERIOD_END, PERIOD_START, check_books, credit, give, new_customer, pay, use

currencies = st.sampled_from(["JPY", "EUR", "KWD"])
amounts = st.decimals(Decimal("0.001"), 5_000, places=6)
signed = st.decimals(-500, 5_000, places=4)
parts = st.fractions(0, 1)

steps = st.one_of(
    st.tuples(st.just("use"), st.lists(amounts, min_size=1, max_size=5)),
    st.tuples(st.just("invoice"), st.lists(signed, min_size=1, max_size=4)),
    st.tuples(st.just("renew"), st.tuples(amounts, amounts, st.sampled_from(["graduated", "volume"]))),
    st.tuples(st.just("give"), amounts),
    st.tuples(st.just("top_up"), amounts),
    st.tuples(st.just("pay"), parts),
    st.tuples(st.just("overpay"), amounts),
    st.tuples(st.just("credit"), parts),
    st.tuples(st.just("void"), st.none()),
    st.tuples(st.just("write_off"), st.none()),
    st.tuples(st.just("expire"), st.none()),
)


class Customer:
    """Does the steps of an example with one customer, and remembers its invoices."""

    def __init__(self, database, currency, tax_rate):
        self.database, self.currency = database, currency
        self.id = new_customer(database, currency, tax_rate=tax_rate)
        self.invoices = []

    def do(self, name, value):
        """Do a step. One that the state of the last invoice does not allow changes nothing."""
        try:
            getattr(self, name)(value)
        except (Conflict, InvalidRequest):
            return

    def amount(self, value):
        return max(rounded(Decimal(value), self.currency), minor_unit(self.currency))

    def last(self):
        """The last invoice as it is now."""
        if not self.invoices:
            raise Conflict("There is no invoice.")
        with self.database.connection() as connection:
            return invoices.read(connection, self.invoices[-1], self.id)

    def use(self, costs):
        use(self.database, self.id, costs)

    def invoice(self, values):
        self.issue("change", [NewLine("proration", "a change", value) for value in values])

    def top_up(self, value):
        self.issue("top_up", [NewLine("top_up", "a top-up", self.amount(value))])

    def issue(self, reason, lines):
        with self.database.transaction() as connection:
            self.invoices.append(invoicing.issue(connection, self.id, reason=reason, lines=lines).id)

    def renew(self, terms):
        included, bound, mode = terms
        tiers = [{"up_to": str(bound), "factor": "0.5"}, {"up_to": None, "factor": "1.25"}]
        included = {"amount": str(included), "overage": {"mode": mode, "tiers": tiers}}
        fee = [NewLine("fee", "the plan", Decimal("9.995"))]
        with self.database.transaction() as connection:
            started, _ = invoicing.start_draft(
                connection, self.id, reason="renewal", subscription_id=None, period_start=PERIOD_START,
                period_end=PERIOD_END, lines=fee, included=included,
            )  # fmt: skip
        while True:
            with self.database.transaction() as connection:
                if usage_lines.assign(connection, started.id, self.id, batch=2) < 2:
                    break
            check_books(self.database, self.id)
        with self.database.transaction() as connection:
            draft.finish(connection, started.id, self.id, included)
        self.invoices.append(started.id)

    def give(self, value):
        give(self.database, self.id, self.amount(value))

    def pay(self, part):
        invoice = self.last()
        owed = invoice.balance if invoice.state == "uncollectible" else invoice.amount_due
        if amount := rounded(owed * Decimal(float(part)), self.currency):
            pay(self.database, self.id, invoice, amount)

    def overpay(self, value):
        invoice = self.last()
        pay(self.database, self.id, invoice, invoice.amount_due + self.amount(value))

    def credit(self, part):
        invoice = self.last()
        left = rounded((invoice.total - invoice.credited) * Decimal(float(part)), self.currency)
        credit(self.database, self.id, invoice, left)

    def void(self, _):
        with self.database.transaction() as connection:
            invoice_states.void(connection, self.last().id, self.id)

    def write_off(self, _):
        with self.database.transaction() as connection:
            invoice_states.write_off(connection, self.last().id, self.id)

    def expire(self, _):
        with self.database.transaction() as connection:
            connection.execute("UPDATE credit_grants SET expires_at = now() WHERE account_id = %s", (self.id,))
            for row in connection.execute("SELECT id FROM credit_grants WHERE account_id = %s", (self.id,)).fetchall():
                grants.expire(connection, row["id"], self.id)


@given(currencies, st.sampled_from(["0", "19", "7.7"]), st.lists(steps, min_size=3, max_size=14))
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_the_books_are_balanced_after_each_step(database, currency, tax_rate, sequence):
    # Given a customer with credits that do not suffice for every invoice
    customer = Customer(database, currency, tax_rate)
    customer.do("give", Decimal(700))

    for name, value in sequence:
        # When
        customer.do(name, value)

        # Then
        check_books(database, customer.id)

    # And everything but the cost of usage has whole minor units
    with database.connection() as connection:
        balances = postings.balances(connection, customer.id)
        assert ensure(connection, customer.id).currency == currency
    for (name, _), amount in balances.items():
        if name not in ("usage_unbilled", "revenue", "rounding"):
            assert amount == rounded(amount, currency), name
