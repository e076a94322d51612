"""A check of the books: one statement that returns their differences."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """A statement with the columns `subject` (the id that is wrong), `account_id`, `expected` and `found` (texts).

    The database compares: this process only sees differences. Both sides of a comparison are aggregated before they are
    joined, so that Postgres can sort and hash them on its disk.

    name    what differs, for programs
    proves  what is true if nothing is returned
    """

    name: str
    proves: str
    statement: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference that a check has found."""

    check: str
    subject: str
    account_id: str | None
    expected: str
    found: str
