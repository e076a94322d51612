"""Given a tree of agents, when anything in it violates a guarantee, then that rule is reported."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.chaos.budget_watch import BudgetRow
from bench.chaos.stored_trees import Tree
from bench.chaos.tool_server import Execution, ToolServer
from bench.chaos.transcripts import TreeEvent, TreeTranscript
from bench.chaos.tree_rules import check_received, check_tree
from models.journal.events import event

NOW = datetime(2026, 7, 1, tzinfo=UTC)

CALL = {
    "id": "mcp_1_0", "type": "mcp_call", "server_label": "shop", "name": "buy", "status": "completed",
    "output": "execution 1", "error": None, "approval_request_id": None,
}  # fmt: skip

Corrupt = Callable[[Tree], None]


def job(id_: str, kind: str, ended: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_, "kind": kind, "state": "completed", "parent_id": None, "root_id": "job_1", "depth": 0,
        "arguments": {}, "attempt": 1, "error": None, "finished_at": NOW + timedelta(seconds=ended),
        "cancel_requested_at": None, "result": {}, **fields,
    }  # fmt: skip


def tree() -> Tree:
    """Return a turn that has called a tool once."""
    arguments = {"response_id": "resp_1", "item_id": CALL["id"], "name": "buy", "approved": False}
    call_job = job("job_2", "tool.call", 1, arguments=arguments)
    turn = {
        "id": "resp_1", "job_id": "job_1", "agent": "boss", "output": [dict(CALL)], "input_tokens": 3,
        "output_tokens": 2, "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    journal = [
        event(0, "sangha:engine.started", {"prompt_tokens": 3}),
        event(1, "response.output_item.added", {"output_index": 0, "item": CALL}),
        event(2, "response.output_item.done", {"output_index": 0, "item": CALL}),
        event(3, "response.completed", {}),
    ]
    return Tree(
        TreeTranscript("tree", "client", "acct_1", "key", {}, 0.0, tool_keys={"boss": "boss"}),
        "job_1", {"job_1": job("job_1", "turn.run", 2), "job_2": call_job}, {"job_1": turn}, [],
        [Execution("boss", "buy", 1)], BudgetRow(5, 100, ended=True, overdrawn=""), {"job_1": journal},
        {"job_1": 2, "job_2": 0},
    )  # fmt: skip


def approval(tree: Tree, status: str, reason: str = "policy") -> None:
    tree.turns["job_1"]["output"][0]["approval_request_id"] = "mcpr_1"
    tree.approvals = [{"id": "mcpr_1", "response_id": "resp_1", "reason": reason, "tool_name": "buy",
                       "status": status, "gate_job_id": "job_3"}]  # fmt: skip


def test_a_whole_tree_has_no_violation():
    assert list(check_tree(tree())) == []


def test_an_execution_without_an_answer_is_right_if_somebody_was_asked():
    asked = tree()
    asked.executions = [Execution("boss", "buy", 1), Execution("boss", "buy", 2)]
    approval(asked, "denied", "in_doubt")
    asked.turns["job_1"]["output"][0]["approval_request_id"] = None

    assert list(check_tree(asked)) == []


def execute_again(tree: Tree) -> None:
    tree.executions = [*tree.executions, Execution("boss", "buy", 2)]


def leave_a_job(tree: Tree) -> None:
    tree.jobs["job_2"]["finished_at"] = None


def outlive_the_root(tree: Tree) -> None:
    tree.jobs["job_2"]["finished_at"] = NOW + timedelta(seconds=9)


def leave_a_call_in_progress(tree: Tree) -> None:
    tree.turns["job_1"]["output"][0]["status"] = "in_progress"


def dispatch_a_denied_call(tree: Tree) -> None:
    approval(tree, "denied")


def lose_an_approved_call(tree: Tree) -> None:
    approval(tree, "approved")
    tree.jobs["job_2"]["arguments"]["item_id"] = "mcp_other"


def repeat_without_asking(tree: Tree) -> None:
    tree.jobs["job_4"] = {**tree.jobs["job_2"], "id": "job_4"}


def bill_less(tree: Tree) -> None:
    tree.turns["job_1"]["output_tokens"] = 1


def overdraw(tree: Tree) -> None:
    assert tree.budget is not None
    tree.budget = replace(tree.budget, max_tokens=4)


def forget_what_was_used(tree: Tree) -> None:
    assert tree.budget is not None
    tree.budget = replace(tree.budget, tokens=70)


def repeat_an_item(tree: Tree) -> None:
    events = tree.journals["job_1"]
    tree.journals["job_1"] = [*events[:3], replace(events[2], sequence=3), replace(events[3], sequence=4)]


def lose_an_event(tree: Tree) -> None:
    del tree.journals["job_1"][1]


@pytest.mark.parametrize(("corrupt", "rule"), [
    (execute_again, "executed once"),
    (leave_a_job, "tree ends"),
    (outlive_the_root, "tree ends"),
    (leave_a_call_in_progress, "items"),
    (dispatch_a_denied_call, "approvals"),
    (lose_an_approved_call, "approvals"),
    (repeat_without_asking, "approvals"),
    (bill_less, "billed"),
    (overdraw, "budget"),
    (forget_what_was_used, "budget"),
    (repeat_an_item, "items"),
    (lose_an_event, "archive"),
])  # fmt: skip
def test_a_violation_is_reported_by_its_rule(corrupt: Corrupt, rule: str):
    corrupted = tree()
    corrupt(corrupted)

    assert rule in {violation.rule for violation in check_tree(corrupted)}


def test_a_gap_in_one_journal_of_a_merged_stream_is_reported():
    transcript = tree().transcript
    transcript.ended = 1.0
    numbers = [("job_1", 0), ("job_2", 0), ("job_2", 2)]
    transcript.tree_events = [TreeEvent(0.0, "", job_id, number, "x", b"{}") for job_id, number in numbers]

    rules = [violation.rule for violation in check_received(transcript, journal_lost=False, excused=False)]

    assert rules == ["merged stream"]


def test_the_tool_server_counts_by_address(monkeypatch):
    monkeypatch.setattr("bench.chaos.tool_server.DURATIONS", (0.0,))
    tools = ToolServer()

    result = tools.answer("boss", {"method": "tools/call", "params": {"name": "buy"}})

    assert result is not None
    assert result["content"][0]["text"] == "execution 1"
    assert tools.executions == [Execution("boss", "buy", 1)]
