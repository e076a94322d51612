"""The trees of the fleet as they are stored: rows, journals, and the executions of their calls."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.chaos.budget_watch import BudgetRow, BudgetWatch
from bench.chaos.table_rules import CHUNKS, archived_events, discarded_tokens, unpacked
from bench.chaos.tool_server import Execution
from bench.chaos.transcripts import TreeTranscript
from models.journal.events import Event
from models.platform.database import Connection, fetch_all

Row = Mapping[str, Any]

JOBS = """
SELECT id, kind, state, parent_id, coalesce(root_id, id) AS root_id, depth, arguments, attempt, error,
       finished_at, cancel_requested_at, result
FROM all_jobs WHERE account_id = ANY(%(accounts)s)
"""

RESPONSES = """
SELECT responses.id, responses.job_id, responses.account_id, request -> 'metadata' ->> 'chaos' AS key,
       request -> 'agent' ->> 'name' AS agent, output, usage, usage_records.input_tokens, usage_records.output_tokens
FROM responses LEFT JOIN usage_records ON usage_records.job_id = responses.job_id
WHERE responses.account_id = ANY(%(accounts)s)
"""

APPROVALS = """
SELECT id, response_id, reason, tool_name, status, gate_job_id FROM approvals WHERE account_id = ANY(%(accounts)s)
"""

BILLS = "SELECT job_id FROM usage_records WHERE account_id = ANY(%(accounts)s)"


@dataclass(slots=True)
class Tree:
    """A tree as it is stored, and what its client and the tool server have seen of it.

    jobs        by their ids
    turns       the responses by the ids of their jobs; the first one is the root's
    journals    the archived events by the ids of the jobs
    tokens      journalled for each turn, by the ids of their jobs
    executions  at the addresses of its agents
    """

    transcript: TreeTranscript
    root: str
    jobs: dict[str, Row]
    turns: Mapping[str, Row]
    approvals: Sequence[Row]
    executions: Sequence[Execution]
    budget: BudgetRow | None = None
    journals: dict[str, Sequence[Event]] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Its name in a report."""
        return f"{self.transcript.subject} ({self.root})"

    def calls(self) -> Iterator[tuple[Row, Row]]:
        """Yield each call that the server ran, with its turn."""
        for turn in self.turns.values():
            for item in turn["output"] or ():
                if item["type"] == "mcp_call":
                    yield turn, item

    def shop_calls(self) -> Iterator[tuple[Row, Row]]:
        """Yield the calls of the tool server."""
        return ((turn, item) for turn, item in self.calls() if item["server_label"] == "shop")


class StoredTrees:
    """The rows of accounts that run trees."""

    def __init__(self, connection: Connection, accounts: Sequence[str]) -> None:
        self._connection = connection
        parameters = {"accounts": accounts}
        self.responses = fetch_all(connection, RESPONSES, parameters)
        self._approvals = fetch_all(connection, APPROVALS, parameters)
        self.bills = {row["job_id"] for row in fetch_all(connection, BILLS, parameters)}
        self._jobs: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in fetch_all(connection, JOBS, parameters):
            self._jobs[row["root_id"]][row["id"]] = row

    def root_of(self, transcript: TreeTranscript) -> "Root":
        """Return the root of a client's tree."""
        jobs = [row["job_id"] for row in self.responses if row["key"] == transcript.key]
        return Root(transcript.key, jobs[0] if jobs else "")

    def tree(
        self, transcript: TreeTranscript, executions: Sequence[Execution], budgets: BudgetWatch | None
    ) -> Tree | None:
        """Return the tree of a client's turn, or None if it does not exist."""
        root = self.root_of(transcript).root
        if not root:
            return None
        jobs = self._jobs[root]
        turns = {row["job_id"]: row for row in self.responses if row["job_id"] in jobs}
        ids = {turn["id"] for turn in turns.values()}
        keys = set(transcript.tool_keys.values())
        tree = Tree(
            transcript, root, jobs, turns,
            [row for row in self._approvals if row["response_id"] in ids],
            [each for each in executions if each.key in keys],
            budgets.rows.get(root) if budgets is not None else None,
        )  # fmt: skip
        self._add_journals(tree)
        return tree

    def _add_journals(self, tree: Tree) -> None:
        journals: dict[str, Sequence[Event]] = {}
        tokens: dict[str, int] = {}
        for job_id in tree.jobs:
            chunks = [unpacked(chunk) for chunk in fetch_all(self._connection, CHUNKS, {"job_id": job_id})]
            journals[job_id] = archived_events(chunks)
            tokens[job_id] = sum(chunk["tokens"] for chunk in chunks) - sum(map(discarded_tokens, journals[job_id]))
        tree.journals, tree.tokens = journals, tokens


@dataclass(frozen=True, slots=True)
class Root:
    """The root of a client's tree: the key of its request, and its job; empty where it does not exist."""

    key: str
    root: str
