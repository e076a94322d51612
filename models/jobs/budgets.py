"""The limits that a tree of jobs shares: tokens, money, calls, depth and time.

A tree has one row, under the id of its root. A job draws what it may use before it uses it, and gives back the rest
when it ends. A tree without a row has no limits.

A child states its draw when it is enqueued (`NewJob.draw`), and its arguments record it. So whatever ends the child can
give the draw back in the same transaction, also where no pipeline of its kind has run: see `settle_draw`.

Many jobs write the row. `draw` and `settle` are one statement each and lock nothing else. Call `draw` last in a
transaction, and `settle` in `Ending.settle`: then no transaction waits for another lock while it holds the row's, so
that no two wait for each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from models.platform.database import Connection, fetch_one
from models.platform.errors import BudgetExhausted


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The limits of a tree. None means no limit.

    money  in the currency of the account
    depth  the depth of the deepest job; the root's is 0
    """

    tokens: int | None = None
    money: Decimal | None = None
    calls: int | None = None
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Remaining(BudgetLimits):
    """What a tree may still draw, at least 0. `deadline_at` is the deadline of its root."""

    deadline_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """What a child draws from the budget of its tree."""

    tokens: int = 0
    money: Decimal = Decimal(0)
    calls: int = 0


OPEN = """
INSERT INTO budgets (root_id, account_id, max_tokens, max_money, max_calls, max_depth)
VALUES (%(root_id)s, %(account_id)s, %(tokens)s, %(money)s, %(calls)s, %(depth)s)
"""


def open_budget(connection: Connection, root_id: str, account_id: str, limits: BudgetLimits) -> None:
    """Set the limits of a tree, in the transaction that enqueues its root."""
    _check_amounts(limits.tokens or 0, limits.money or Decimal(0), limits.calls or 0, limits.depth or 0)
    parameters = {"tokens": limits.tokens, "money": limits.money, "calls": limits.calls, "depth": limits.depth}
    connection.execute(OPEN, {"root_id": root_id, "account_id": account_id, **parameters})


# All or nothing. A concurrent draw waits for the row's lock and then sees the new amounts.
DRAW = """
UPDATE budgets SET tokens = tokens + %(tokens)s, money = money + %(money)s, calls = calls + %(calls)s
WHERE root_id = %(root_id)s
  AND (max_tokens IS NULL OR %(tokens)s = 0 OR tokens + %(tokens)s <= max_tokens)
  AND (max_money IS NULL OR %(money)s = 0 OR money + %(money)s <= max_money)
  AND (max_calls IS NULL OR %(calls)s = 0 OR calls + %(calls)s <= max_calls)
  AND (max_depth IS NULL OR %(depth)s <= max_depth)
  AND NOT EXISTS (SELECT FROM jobs WHERE id = %(root_id)s AND deadline_at <= now())
RETURNING root_id
"""

READ = """
SELECT max_tokens, tokens, max_money, money, max_calls, calls, max_depth,
       jobs.deadline_at, jobs.deadline_at <= now() AS late
FROM budgets JOIN jobs ON jobs.id = budgets.root_id WHERE budgets.root_id = %(root_id)s
"""


def draw(
    connection: Connection,
    root_id: str,
    *,
    tokens: int = 0,
    money: Decimal = Decimal(0),
    calls: int = 0,
    depth: int = 0,
) -> None:
    """Draw amounts for a job at `depth`, all of them or none. Does nothing for a tree without a budget.

    Draw for a child in the transaction that enqueues it. Raises BudgetExhausted if a limit would be exceeded.
    """
    _check_amounts(tokens, money, calls, depth)
    amounts: dict[str, Any] = {"tokens": tokens, "money": money, "calls": calls, "depth": depth}
    while fetch_one(connection, DRAW, {"root_id": root_id, **amounts}) is None:
        row = fetch_one(connection, READ, {"root_id": root_id})
        if row is None:
            return
        if reason := _exceeded_limit(row, amounts):
            raise BudgetExhausted(f"The budget of {root_id} is exhausted: {reason}.")
        # Another job has given back enough since the statement: draw again.


def _exceeded_limit(row: Mapping[str, Any], amounts: Mapping[str, Any]) -> str | None:
    """Return which limit the amounts would exceed, with its value, or None."""
    if row["late"]:
        return f"its deadline passed at {row['deadline_at']:%Y-%m-%d %H:%M:%S %Z}"
    if row["max_depth"] is not None and amounts["depth"] > row["max_depth"]:
        return f"the limit of depth is {row['max_depth']}, and this job's depth is {amounts['depth']}"
    for name in ("tokens", "money", "calls"):
        limit, used, amount = row[f"max_{name}"], row[name], amounts[name]
        if limit is not None and amount and used + amount > limit:
            return f"the limit of {name} is {_plain(limit)}, {_plain(used)} are used, {_plain(amount)} were requested"
    return None


def _plain(amount: int | Decimal) -> str:
    """Write an amount without an exponent."""
    return f"{Decimal(amount):f}"


SETTLE = """
UPDATE budgets SET tokens = greatest(tokens - %(tokens)s, 0), money = greatest(money - %(money)s, 0),
                   calls = greatest(calls - %(calls)s, 0)
WHERE root_id = %(root_id)s
"""


def settle(
    connection: Connection, root_id: str, *, tokens: int = 0, money: Decimal = Decimal(0), calls: int = 0
) -> None:
    """Give back what a job has drawn and not used, in the transaction that ends it.

    Each amount is what was drawn minus what was used. A negative one, of a job that used more than it had drawn, is
    counted even above the limit, because it is spent; later draws then fail.
    """
    _check_finite(money)
    connection.execute(SETTLE, {"root_id": root_id, "tokens": tokens, "money": money, "calls": calls})


def draw_argument(root_id: str, drawn: Draw) -> dict[str, Any]:
    """Return the job argument that records a draw. It names the tree, since the job may be moved to another one."""
    amounts = {"tokens": drawn.tokens, "money": str(drawn.money), "calls": drawn.calls}
    return {"budget_draw": {"root_id": root_id, **amounts}}


NOTHING = Draw()


def settle_draw(connection: Connection, arguments: Mapping[str, Any], used: Draw = NOTHING) -> None:
    """Give back what the job with these arguments has drawn and not used. Does nothing for a job without a draw.

    Call it once, in the transaction that ends the job, like `settle`.
    """
    if drawn := arguments.get("budget_draw"):
        settle(
            connection,
            drawn["root_id"],
            tokens=drawn["tokens"] - used.tokens,
            money=Decimal(drawn["money"]) - used.money,
            calls=drawn["calls"] - used.calls,
        )


def settle_draws(connection: Connection, ended: Iterable[Mapping[str, Any]]) -> None:
    """Give back the whole draws of jobs that end without an attempt, in the order of the trees.

    ended  their arguments, or at least the argument `budget_draw`
    """
    drawn = [arguments for arguments in ended if arguments.get("budget_draw")]
    for arguments in sorted(drawn, key=lambda arguments: str(arguments["budget_draw"]["root_id"])):
        settle_draw(connection, arguments)


def remaining(connection: Connection, root_id: str) -> Remaining | None:
    """Return what a tree may still draw, or None if it has no budget."""
    row = fetch_one(connection, READ, {"root_id": root_id})
    if row is None:
        return None
    return Remaining(
        tokens=_left(row["max_tokens"], row["tokens"]),
        money=_left(row["max_money"], row["money"]),
        calls=_left(row["max_calls"], row["calls"]),
        depth=row["max_depth"],
        deadline_at=row["deadline_at"],
    )


def _left(limit: Any, used: Any) -> Any:
    return None if limit is None else limit - min(limit, used)


def _check_amounts(tokens: int, money: Decimal, calls: int, depth: int) -> None:
    """Raise ValueError for a negative amount, and for NaN and Infinity, which Postgres would store."""
    _check_finite(money)
    if any(amount < 0 for amount in (tokens, money, calls, depth)):
        raise ValueError(f"amounts of a budget are not negative: {tokens} tokens, {money} money, {calls} calls")


def _check_finite(money: Decimal) -> None:
    if not money.is_finite():
        raise ValueError(f"an amount of money is a finite number, not {money}")
