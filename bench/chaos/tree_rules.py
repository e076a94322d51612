"""Rules about trees: each call is executed once or asked about, and every journal, bill and budget agrees."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import orjson

from bench.chaos import stream_rules
from bench.chaos.budget_watch import BudgetWatch
from bench.chaos.excuses import Excuses
from bench.chaos.stored_trees import Row, StoredTrees, Tree
from bench.chaos.table_rules import LAST_EVENTS, NONE, asks_endpoint
from bench.chaos.tool_server import READ_ONLY, Execution
from bench.chaos.transcripts import ClientTranscript, TreeEvent, TreeTranscript
from bench.chaos.violations import Violation
from bench.harness.sse import REWOUND
from models.journal.events import Event
from models.journal.shared_fields import complete_events
from models.platform.database import Connection
from pipelines.chat.transcript import ENGINE_STARTED, ITEM_ADDED, ITEM_DONE, STEP_GENERATED


def check(
    connection: Connection,
    transcripts: Sequence[ClientTranscript],
    executions: Sequence[Execution] = (),
    budgets: BudgetWatch | None = None,
    excuses: Excuses = NONE,
) -> Iterator[Violation]:
    """Check all trees. Those whose commits Postgres may have lost are checked as far as their clients have seen."""
    trees = [transcript for transcript in transcripts if isinstance(transcript, TreeTranscript)]
    accounts = sorted({each.account for each in trees})
    stored = StoredTrees(connection, accounts)
    for transcript in trees:
        if transcript.key in excuses.lost:
            continue
        tree = stored.tree(transcript, executions, budgets)
        if tree is not None:
            yield from check_tree(tree)
        elif transcript.accepted_at is not None:
            yield Violation("durable", transcript.subject, "it was accepted, and does not exist")
    known = {turn["job_id"] for turn in stored.responses}
    for job_id in stored.bills - known:
        yield Violation("billed", job_id, "no turn has this bill")
    lost = {each.root for each in map(stored.root_of, trees) if each.key in excuses.lost}
    if budgets is not None:
        yield from (each for each in budgets.check() if each.subject not in lost)


def check_tree(tree: Tree) -> Iterator[Violation]:
    """Check one tree."""
    for check_part in (
        check_ends, check_items, check_executions, check_approvals, check_call_jobs, check_usage, check_budget,
        check_journals, check_merged_stream,
    ):  # fmt: skip
        for rule, detail in check_part(tree):
            yield Violation(rule, tree.subject, detail)


#: The rule that is violated, and the evidence.
Finding = tuple[str, str]


def check_ends(tree: Tree) -> Iterator[Finding]:
    """Check that nothing of the tree is unfinished, and that no job of an agent or a call outlived a complete root."""
    root = tree.jobs[tree.root]
    for job in tree.jobs.values():
        if job["finished_at"] is None:
            yield "tree ends", f"{job['kind']} {job['id']} is {job['state']}, and its root {root['state']}"
        elif root["state"] == "completed" and job["kind"] != "tool.list" and job["finished_at"] > root["finished_at"]:
            detail = f"{job['kind']} {job['id']} ended {job['finished_at'] - root['finished_at']} after its root"
            yield "tree ends", detail
        if job["state"] in ("failed", "dead"):
            yield "tree ends", f"{job['kind']} {job['id']} is {job['state']}: {job['error']}"
    if root["state"] == "cancelled" and not tree.transcript.cancels:
        yield "tree ends", "it was cancelled without a request"


def check_items(tree: Tree) -> Iterator[Finding]:
    """Check that an ended turn has no call in progress, and each item once, in its place."""
    for job_id, turn in tree.turns.items():
        ids = [item["id"] for item in turn["output"] or ()]
        if len(ids) != len(set(ids)):
            yield "items", f"{turn['id']} has items with the same id: {ids}"
        for item in turn["output"] or ():
            if tree.jobs[job_id]["finished_at"] is not None and item.get("status") == "in_progress":
                yield "items", f"{item['type']} {item['id']} of the ended {turn['id']} is in progress"


def check_executions(tree: Tree) -> Iterator[Finding]:
    """Check that every call was executed once, unless a person was asked, and that no two have the same output."""
    outputs = Counter(item["output"] for _, item in tree.shop_calls() if item["output"] is not None)
    known = {each.output: each for each in tree.executions}
    for output, times in outputs.items():
        if times > 1 or output not in known:
            yield "executed once", f"{times} calls have the output {output!r}"
    answered, executed, excused = Counter[tuple[str, str]](), Counter[tuple[str, str]](), _doubts(tree)
    for each in tree.executions:
        executed[each.key, each.tool] += 1
        answered[each.key, each.tool] += each.output in outputs
    for (key, tool), times in executed.items():
        unanswered = times - answered[key, tool]
        if tool != READ_ONLY and unanswered > excused[key, tool]:
            detail = (
                f"{tool} of {key} was executed {times} times: {answered[key, tool]} are answers, and only "
                f"{excused[key, tool]} others were asked about or cancelled"
            )
            yield "executed once", detail


def _doubts(tree: Tree) -> Counter[tuple[str, str]]:
    """Count the executions that may have no answer: a person was asked what to do, or the tree was stopped."""
    agents = {turn["id"]: turn["agent"] for turn in tree.turns.values()}
    doubts = Counter(
        (agents[row["response_id"]], row["tool_name"]) for row in tree.approvals if row["reason"] == "in_doubt"
    )
    for job in tree.jobs.values():
        if job["kind"] == "tool.call" and job["state"] == "cancelled":
            doubts[agents.get(job["arguments"]["response_id"], ""), job["arguments"]["name"]] += 1
    for turn, item in tree.shop_calls():  # its turn was stopped before the answer was added
        job = tree.jobs[turn["job_id"]]
        if item["status"] == "incomplete" and (job["state"] == "cancelled" or job["cancel_requested_at"]):
            doubts[turn["agent"], item["name"]] += 1
    return doubts


def check_approvals(tree: Tree) -> Iterator[Finding]:
    """Check that an approved call was dispatched once, and any other not at all."""
    turns = {turn["id"]: turn for turn in tree.turns.values()}
    dispatched = {job["arguments"]["item_id"] for job in tree.jobs.values() if job["kind"] == "tool.call"}
    for row in tree.approvals:
        turn = turns[row["response_id"]]
        calls = [item for item in turn["output"] or ()
                 if item["type"] == "mcp_call" and item["approval_request_id"] == row["id"]]  # fmt: skip
        ended_itself = tree.jobs[turn["job_id"]]["state"] == "completed" and not _stopped(tree, turn)
        if row["status"] == "pending":
            yield "approvals", f"{row['id']} is pending, and its turn has ended"
        elif row["reason"] == "in_doubt":
            continue  # see `check_call_jobs`
        elif len(calls) > 1:
            yield "approvals", f"{row['id']} has {len(calls)} calls"
        elif row["status"] == "approved" and ended_itself and not (calls and calls[0]["id"] in dispatched):
            yield "approvals", f"{row['id']} was approved, and its call was not dispatched"
        elif row["status"] != "approved" and any(call["id"] in dispatched for call in calls):
            yield "approvals", f"{row['id']} is {row['status']}, and its call was dispatched"


def _stopped(tree: Tree, turn: Row) -> bool:
    """Return whether a turn ended at a limit of its tree."""
    events = tree.journals.get(turn["job_id"], ())
    return bool(events) and events[-1].type != b"response.completed"


def check_call_jobs(tree: Tree) -> Iterator[Finding]:
    """Check that a call has one job, and one more for each time that a person has let it be repeated."""
    repeats = Counter(row["response_id"] for row in tree.approvals if (row["reason"], row["status"]) == _REPEAT)
    jobs: dict[str, Counter[str]] = defaultdict(Counter)
    approved: Counter[str] = Counter()
    for job in tree.jobs.values():
        if job["kind"] == "tool.call":
            jobs[job["arguments"]["response_id"]][job["arguments"]["item_id"]] += 1
            approved[job["arguments"]["response_id"]] += bool(job["arguments"]["approved"])
    for response_id, by_item in jobs.items():
        more = sum(by_item.values()) - len(by_item)
        if more > repeats[response_id] or approved[response_id] > repeats[response_id]:
            detail = f"{response_id}: {dict(by_item)} jobs for its calls, {repeats[response_id]} repeats were approved"
            yield "approvals", detail


#: Reason and status of the approval of a repeat.
_REPEAT = ("in_doubt", "approved")


def check_usage(tree: Tree) -> Iterator[Finding]:
    """Check that each turn is billed for the tokens in its journal."""
    for job_id, turn in tree.turns.items():
        job = tree.jobs[job_id]
        if job["attempt"] == 0 or job["state"] not in LAST_EVENTS:
            if turn["output_tokens"] is not None:
                yield "billed", f"{turn['id']} was billed and never ran"
            continue
        prompts = sum(orjson.loads(event.data)["prompt_tokens"] for event in tree.journals[job_id]
                      if event.type == ENGINE_STARTED.encode())  # fmt: skip
        usage = turn["usage"] or {}
        if any(map(asks_endpoint, tree.journals[job_id])):  # which counts the prompts itself
            prompts = usage.get("input_tokens")
        tokens = {
            "journalled": (prompts, tree.tokens[job_id]),
            "response": (usage.get("input_tokens"), usage.get("output_tokens")),
            "bill": (turn["input_tokens"], turn["output_tokens"]),
        }
        if len(set(tokens.values())) > 1:
            yield "billed", f"input and output tokens of {turn['id']} differ: {tokens}"


def check_budget(tree: Tree) -> Iterator[Finding]:
    """Check that no tree has used more than its budget, and that the budget has what its turns have used.

    The last generation of the root is not counted any more: nothing can be drawn after it.
    """
    if tree.budget is None or not tree.budget.ended:
        return
    used = {job_id: (turn["input_tokens"] or 0) + (turn["output_tokens"] or 0) for job_id, turn in tree.turns.items()}
    total = sum(used.values())
    if tree.budget.max_tokens is not None and total > tree.budget.max_tokens:
        yield "budget", f"its turns have used {total} tokens of {tree.budget.max_tokens}"
    steps = [0, *accumulate(_generated_steps(tree)), used[tree.root]]
    possible = {total - used[tree.root] + counted for counted in steps[-3:]}
    if tree.budget.tokens not in possible:
        yield "budget", f"its budget has {tree.budget.tokens} tokens, and its turns have used {total}: {steps}"


def _generated_steps(tree: Tree) -> Iterator[int]:
    """Yield the tokens of each generation of the root but the last one."""
    for event in tree.journals.get(tree.root, ()):
        if event.type == STEP_GENERATED.encode():
            usage = orjson.loads(event.data)["usage"]
            yield usage["input_tokens"] + usage["output_tokens"]


def check_journals(tree: Tree) -> Iterator[Finding]:
    """Check that every archive is contiguous, and has each item and each output once, in the order of its places."""
    for job_id, events in tree.journals.items():
        numbers = [event.sequence for event in events]
        if numbers != list(range(len(numbers))):
            yield "archive", f"{tree.jobs[job_id]['kind']} {job_id} has the numbers {numbers[:50]}"
        for type_ in (ITEM_ADDED, ITEM_DONE):
            places = Counter(_place(event) for event in events if event.type == type_.encode())
            again = {place: count for place, count in places.items() if count > 1}
            if again and not _restarted(events):
                yield "items", f"{job_id} has {type_} more than once for {again}"
        added = {_place(event)[0] for event in events if event.type == ITEM_ADDED.encode()}
        if added != set(range(len(added))):
            yield "items", f"{job_id} has items at the places {sorted(added)}"
    received = tree.transcript.effective_events()
    if tree.transcript.complete and (detail := _difference(received, tree.journals.get(tree.root, ()))):
        yield "archive", f"it differs from the stream: {detail}"


def _place(event: Event) -> tuple[int, str]:
    payload = orjson.loads(event.data)
    return payload["output_index"], payload["item"]["id"]


def _restarted(events: Sequence[Event]) -> bool:
    return any(event.type == b"sangha:answer.restarted" for event in events)


def _difference(received: Sequence[Any], archived: Sequence[Event]) -> str:
    """Describe the first archived event that was not received like this; empty when there is none."""
    expected = complete_events(archived, archived[0]) if archived else []
    for stream, archive in zip(received, expected, strict=False):
        if stream.data != archive.data:
            return f"{stream.sequence}: received {stream.data[:160]!r}, archived {archive.data[:160]!r}"
    return "" if len(received) == len(expected) else f"{len(received)} events received, {len(expected)} archived"


def check_merged_stream(tree: Tree) -> Iterator[Finding]:
    """Check that the merged stream had every journal, whole and in order."""
    if not (tree.transcript.tree_events and tree.transcript.tree_complete):
        return
    by_job: dict[str, list[TreeEvent]] = defaultdict(list)
    for event in tree.transcript.tree_events:
        by_job[event.job].append(event)
    for job_id, events in by_job.items():
        if detail := _difference(_effective(events), tree.journals.get(job_id, ())):
            yield "merged stream", f"{job_id}: {detail}"
    announced = {job["id"] for job in tree.jobs.values() if job["kind"] != "tool.list"}
    if missing := announced - by_job.keys():
        kinds = sorted(f"{tree.jobs[each]['kind']} {each}" for each in missing)
        yield "merged stream", f"it lacks {kinds}"


def _effective(events: Sequence[TreeEvent]) -> list[TreeEvent]:
    """Drop the events that a later rewind replaced, or that were delivered again."""
    effective: list[TreeEvent] = []
    for event in events:
        if event.type == REWOUND or (effective and event.sequence <= effective[-1].sequence):
            effective = [each for each in effective if each.sequence < event.sequence]
        effective.append(event)
    return effective


def check_received(transcript: TreeTranscript, *, journal_lost: bool, excused: bool) -> Iterator[Violation]:
    """Check what a client received of a tree, with the rules of every stream."""
    if excused and stream_rules.was_lost(transcript):
        return
    yield from stream_rules.check_end(transcript)
    yield from stream_rules.check_numbers(transcript, journal_lost=journal_lost or excused)
    if excused:
        return
    yield from stream_rules.check_replies(transcript)
    if transcript.events:
        yield from stream_rules.check_replays(transcript)
    yield from _check_merged_numbers(transcript)
    if transcript.complete and transcript.final:
        response = transcript.effective_events()[-1].json().get("response") or {}
        if unequal := stream_rules.unequal_fields(response, transcript.final, mixed=False):
            yield Violation("response", transcript.subject, f"stream and response differ in {unequal}")


def _check_merged_numbers(transcript: TreeTranscript) -> Iterator[Violation]:
    """Check that the numbers of each journal increase by one, except where it was rewound.

    After a rewind a journal is delivered again from its beginning if its job is announced again.
    """
    following: dict[str, int] = defaultdict(int)
    any_rewind = False
    for event in transcript.tree_events:
        any_rewind = any_rewind or event.type == REWOUND
        backward = event.sequence < following[event.job] and (event.type == REWOUND or event.sequence == 0)
        if event.sequence != following[event.job] and not (any_rewind and backward):
            detail = f"{event.job}: {event.sequence} ({event.type}) follows {following[event.job] - 1}"
            yield Violation("merged stream", transcript.subject, detail)
            return
        following[event.job] = event.sequence + 1
