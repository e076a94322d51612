"""Currencies by ISO 4217, and amounts of money as decimal numbers.

Amounts are in the currency's main unit: `Decimal("19.99")` EUR. What somebody pays has at most the digits of the
currency's minor unit; the cost of usage is exact until a line of an invoice rounds it.
"""

from decimal import ROUND_HALF_UP, Decimal

from models.platform.errors import InvalidRequest

#: Digits of the minor unit where they are not two.
MINOR_DIGITS = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}

#: The other currencies, with two digits.
_CODES = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP
CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR
JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN
NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW
"""
TWO_DIGITS = frozenset(_CODES.split())

#: The largest amount that is accepted from a caller, in main units.
MAX_AMOUNT = Decimal(1_000_000_000)

ZERO = Decimal(0)


def check_currency(currency: str, param: str = "currency") -> str:
    """Return the code in capitals. Raises InvalidRequest for one that is not in ISO 4217."""
    code = currency.upper()
    if code not in TWO_DIGITS and code not in MINOR_DIGITS:
        raise InvalidRequest(f"'{param}' should be a currency code of ISO 4217, such as 'EUR'.", param=param)
    return code


def minor_digits(currency: str) -> int:
    """Return how many decimal digits an amount of the currency has."""
    return MINOR_DIGITS.get(currency, 2)


def minor_unit(currency: str) -> Decimal:
    """Return the smallest amount of the currency."""
    return Decimal(1).scaleb(-minor_digits(currency))


def rounded(amount: Decimal, currency: str) -> Decimal:
    """Round to the minor unit, halves away from zero."""
    return amount.quantize(minor_unit(currency), ROUND_HALF_UP)


def to_minor(amount: Decimal, currency: str) -> int:
    """Return a rounded amount as gateways count it: in minor units. Raises ValueError for one with more digits."""
    minor = amount.scaleb(minor_digits(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"{amount} {currency} is not a whole number of minor units")
    return int(minor)


def from_minor(amount: int, currency: str) -> Decimal:
    """Return an amount of minor units in the main unit."""
    return Decimal(amount).scaleb(-minor_digits(currency))


def check_amount(amount: Decimal, currency: str, param: str = "amount") -> Decimal:
    """Return an amount that a caller states, with all digits of the currency.

    Raises InvalidRequest unless it is above zero, at most MAX_AMOUNT, and a whole number of minor units.
    """
    if not amount.is_finite() or not ZERO < amount <= MAX_AMOUNT:
        raise InvalidRequest(f"'{param}' should be above 0 and at most {MAX_AMOUNT}.", param=param)
    if amount != rounded(amount, currency):
        digits = minor_digits(currency)
        raise InvalidRequest(f"'{param}' has more than the {digits} decimal digits of {currency}.", param=param)
    return rounded(amount, currency)


def format_amount(amount: Decimal, currency: str | None = None) -> str:
    """Write an amount without exponent: with the digits of its currency, or without one with those that it needs."""
    if currency is not None and amount == rounded(amount, currency):
        return f"{rounded(amount, currency):f}"
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
