"""The code of the guide on adding a job kind works as it stands."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren, plain_ending
from models.jobs.budgets import BudgetLimits, Draw, Remaining, open_budget, remaining, settle_draw
from models.jobs.catalogue import CATALOGUE, JobKind
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob, children
from models.platform.errors import BudgetExhausted
from pipelines.effects import LookUpAnswer, perform

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "add-a-job-kind.md"

#: The names that the samples use.
NAMES = {
    "Any": Any,
    "Attempt": Attempt,
    "Draw": Draw,
    "LookUpAnswer": LookUpAnswer,
    "Mapping": Mapping,
    "NewJob": NewJob,
    "Outcome": Outcome,
    "RESERVED": 10,
    "Summarizer": object,
    "Supplier": object,
    "WaitForChildren": WaitForChildren,
    "children": children,
    "perform": perform,
    "plain_ending": plain_ending,
    "replace": replace,
    "settle_draw": settle_draw,
}


def samples(heading: str) -> dict[str, Any]:
    """Return the functions that the Python blocks of a section define."""
    section = GUIDE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    names = dict(NAMES)
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    return names


class Supplier:
    """A supplier that knows orders by their idempotency keys."""

    def __init__(self):
        self.orders = {}

    def order(self, order, *, idempotency_key):
        self.orders[idempotency_key] = {"number": len(self.orders) + 1, **order}
        raise ConnectionResetError

    def find_order(self, key):
        return self.orders.get(key)


class Summarizer:
    def summarise(self, note, *, max_tokens):
        return f"about {note}", 4


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    for kind in ("notes.print", "notes.summarise_all", "notes.summarise"):
        monkeypatch.setitem(CATALOGUE, kind, JobKind(queue="maintenance"))


def test_an_order_whose_answer_was_lost_is_made_once(begin, account):
    # Given an attempt that lost the supplier's answer
    run, supplier = samples("Call another system once")["run"], Supplier()
    job = NewJob("notes.print", account, {"copies": 2})
    with pytest.raises(ConnectionResetError):
        run(supplier, begin(job))

    # When the job is retried, then it has the receipt of the first order
    assert run(supplier, begin(job)).result == {"number": 1, "copies": 2}
    assert len(supplier.orders) == 1


def wait(database, attempt, outcome):
    """Let a job wait for children, as a worker does."""
    assert isinstance(outcome, WaitForChildren)
    with database.transaction() as connection:
        wait_for_children(connection, attempt.job, outcome.children)


def test_a_tree_draws_once_for_each_child_and_settles(database, begin, settle, account):
    # Given a parent that waits for its children, after an attempt that crashed before it did
    functions = samples("Limit a tree of jobs")
    job = NewJob("notes.summarise_all", account, {"notes": ["a", "b"]})
    functions["summarise_all"](begin(job))
    with database.transaction() as connection:
        open_budget(connection, job.id, account, BudgetLimits(tokens=20, calls=2, depth=1))
    parent = begin(job)
    wait(database, parent, functions["summarise_all"](parent))

    # When the children end
    with database.connection() as connection:
        assert remaining(connection, job.id) == Remaining(tokens=0, calls=0, depth=1)
        rows = children(connection, job.id)
    for row in rows:
        attempt = begin(NewJob(row.kind, account, id=row.id))
        settle(attempt, functions["summarise"](Summarizer(), attempt))

    # Then the parent has their results, and what they did not use is left
    assert functions["summarise_all"](begin(job)).result == {"summaries": [{"text": "about a"}, {"text": "about b"}]}
    with database.connection() as connection:
        assert remaining(connection, job.id) == Remaining(tokens=12, calls=0, depth=1)


def test_an_exhausted_budget_inserts_no_child(database, begin, account):
    functions = samples("Limit a tree of jobs")
    job = NewJob("notes.summarise_all", account, {"notes": ["a", "b", "c"]})
    parent = begin(job)
    with database.transaction() as connection:
        open_budget(connection, job.id, account, BudgetLimits(tokens=29))

    with pytest.raises(BudgetExhausted, match="the limit of tokens is 29, 0 are used, 30 were requested"):
        wait(database, parent, functions["summarise_all"](parent))

    with database.connection() as connection:
        assert children(connection, job.id) == []
