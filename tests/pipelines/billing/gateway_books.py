"""What the simulated gateway and we have noted of a customer."""

from dataclasses import dataclass

from models.billing import payments, postings, refunds
from models.platform.database import Database, fetch_all

CHARGES = """
SELECT idempotency_key, state, amount, returned FROM simulated_objects
WHERE customer = %(customer)s AND kind = 'charge' ORDER BY id
"""

EVENTS = """
SELECT event_id FROM gateway_events
WHERE payload::jsonb ->> 'object' IN (SELECT id FROM simulated_objects WHERE customer = %(customer)s)
  AND state = 'received'
ORDER BY received_at, event_id
"""


@dataclass(frozen=True)
class Books:
    """The books of one customer."""

    database: Database
    customer: str

    def charges(self):
        """Return the simulated gateway's charges."""
        return self._rows(CHARGES)

    def event_ids(self):
        """Return the events that nobody has applied."""
        return [row["event_id"] for row in self._rows(EVENTS)]

    def payment(self, payment_id):
        """Return our payment."""
        with self.database.connection() as connection:
            return payments.read(connection, payment_id, self.customer)

    def refund(self, refund_id):
        """Return our refund."""
        with self.database.connection() as connection:
            return refunds.read(connection, refund_id, self.customer)

    def balance(self, name, currency="EUR"):
        """Return the balance of a ledger account."""
        with self.database.connection() as connection:
            return postings.balances(connection, self.customer).get((name, currency), 0)

    def posted(self, kind, reference):
        """Return the sum of a reference's postings."""
        with self.database.connection() as connection:
            return sum(leg.amount for leg in postings.posted_legs(connection, kind, reference))

    def _rows(self, statement):
        with self.database.connection() as connection:
            return fetch_all(connection, statement, {"customer": self.customer})
