"""Look at the budgets of trees during a run, since they are deleted when an ended tree is moved."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.chaos.violations import Violation
from models.platform.database import Connection, Database, fetch_all
from models.platform.errors import Unavailable

BUDGETS = """
SELECT root_id, max_tokens, tokens, max_calls, calls, max_money, money,
       NOT EXISTS (SELECT FROM jobs WHERE coalesce(jobs.root_id, jobs.id) = budgets.root_id
                   AND finished_at IS NULL) AS ended
FROM budgets
"""


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A tree's budget: tokens that were drawn or used, and whether all of its jobs have ended."""

    tokens: int
    max_tokens: int | None
    ended: bool
    overdrawn: str


class BudgetWatch:
    """The latest row of each budget."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: dict[str, BudgetRow] = {}
        self._overdrawn: dict[str, str] = {}

    @property
    def rows(self) -> Mapping[str, BudgetRow]:
        """The rows by the id of the tree's root."""
        return dict(self._rows)

    def look(self) -> None:
        """Read all rows, unless Postgres is unavailable."""
        with contextlib.suppress(Unavailable), self._database.connection() as connection:
            self.read(connection)

    def read(self, connection: Connection) -> None:
        """Read all rows."""
        for row in fetch_all(connection, BUDGETS):
            more = [
                f"{row[name]} {name} of {row[f'max_{name}']}" for name in ("tokens", "calls", "money")
                if row[f"max_{name}"] is not None and row[name] > row[f"max_{name}"]
            ]  # fmt: skip
            self._rows[row["root_id"]] = BudgetRow(row["tokens"], row["max_tokens"], row["ended"], ", ".join(more))
            if more:
                self._overdrawn.setdefault(row["root_id"], ", ".join(more))

    def check(self) -> Iterator[Violation]:
        """Report the budgets that were overdrawn at any look."""
        for root_id, detail in self._overdrawn.items():
            yield Violation("budget", root_id, f"it was overdrawn: {detail}")
