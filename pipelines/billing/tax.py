"""The tax of an invoice: the account's rate on its subtotal, rounded once. There is no tax engine."""

from decimal import Decimal

from models.billing.currencies import ZERO, rounded


def tax_on(net: Decimal, rate: Decimal, currency: str) -> Decimal:
    """Return the tax on a net amount of either sign. `rate` is in percent."""
    return rounded(net * rate / 100, currency)


def tax_share(tax: Decimal, total: Decimal, credited: Decimal, already: Decimal, currency: str) -> Decimal:
    """Return the part of an invoice's tax that a credit note takes back.

    `credited` is what all credit notes of the invoice amount to, this one included, and `already` the tax of the
    earlier ones. So the last one takes exactly the rest.
    """
    return rounded(tax * credited / total, currency) - already if total else ZERO
