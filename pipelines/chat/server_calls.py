"""Calls that the server runs for a turn: begin them, wait for their jobs, and add their outputs to the answer.

    generated ─► approval ─► child job ─► output

A call is journalled with the id of its job before the job exists, so that a repeated attempt inserts the same one or
finds it. Everything here follows from the journal and from the rows of the jobs: the next attempt continues after a
crash at any line.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from models.accounts.ownership import Access
from models.agents.approvals import Approval
from models.jobs import jobs
from models.jobs.attempt_context import Attempt, WaitForChildren
from models.jobs.budgets import Draw
from models.jobs.jobs import Job
from models.platform.database import Connection
from models.platform.ids import new_id
from models.turns import responses
from models.turns.responses import Response
from pipelines.agents import tree_money
from pipelines.agents.approvals import approval_reason, expiry, new_approval
from pipelines.agents.turn_tools import Child, ServerTool, TurnTools
from pipelines.chat.answer_writer import AnswerWriter, is_done
from pipelines.chat.call_outcomes import agent_outcome, call_outcome
from pipelines.chat.mcp_items import approval_request_item, denial_text, execution_error, mcp_call_item
from pipelines.chat.reasoning_writer import NewEvent
from pipelines.chat.transcript import AGENT_STARTED, APPROVAL_REQUESTED, CALL_STARTED, HANDED_OFF, add_usage
from pipelines.inference.engine import GeneratedCall

#: The limits of its calls at which a turn ends.
LimitReached = Literal["max_tool_calls", "max_steps", "budget", "deadline"]

CALL_COMPLETED, AGENT_COMPLETED = "sangha:tool_call.completed", "sangha:agent.completed"
APPROVAL_DECIDED = "sangha:approval.decided"

IN_DOUBT = "It is not known whether this call was executed, because its worker was lost. It was not repeated."

Item = Mapping[str, Any]


def has_server_calls(answer: AnswerWriter) -> bool:
    """Return whether the step has calls that the server runs."""
    return any(item["type"] in ("mcp_call", "mcp_approval_request") for item in answer.call_items)


def begin(answer: AnswerWriter, tools: TurnTools, tool: ServerTool, call: GeneratedCall) -> None:
    """Journal a generated call: its beginning, or the request for its approval."""
    label, name = tool.label, tool.tool.name
    if tools.max_tool_calls is not None and _calls(answer) >= tools.max_tool_calls:
        answer.add_item(mcp_call_item(answer.call_suffix, label, name, call.arguments, status="incomplete"), call.count)
    elif reason := approval_reason(tool.approval, tool.tool, call.arguments, label):
        request = approval_request_item(new_id("mcpr"), label, name, call.arguments)
        answer.add_item(request, call.count, _requested(answer, tools, request["id"], reason, tool=tool))
    else:
        _begin_call(answer, tool, call.arguments, tokens=call.count)


def begin_approved(answer: AnswerWriter, tools: TurnTools) -> bool:
    """Begin the calls that this turn's input approves. Returns whether there are any."""
    if answer.transcript.step.number or answer.transcript.step.begun or not tools.decided:
        return False
    begun = {item["approval_request_id"] for item in answer.call_items}
    for approval in tools.decided:
        if approval.id not in begun and approval.status == "approved":
            tool = tools.named(approval.server_label, approval.tool_name)
            if tool is not None and _is_as_approved(tool, approval.tool_digest):
                _begin_call(answer, tool, approval.arguments, approval_id=approval.id)
            else:
                error = execution_error(_refusal("approved" if tool is None else "tool_changed", None))
                item = mcp_call_item(
                    answer.call_suffix, approval.server_label, approval.tool_name, approval.arguments,
                    status="failed", error=error, approval_request_id=approval.id,
                )  # fmt: skip
                answer.add_item(item)
    if answer.call_items:
        answer.end_generation()
    return bool(answer.call_items)


def settle(attempt: Attempt, answer: AnswerWriter, tools: TurnTools) -> WaitForChildren | None:
    """Add the outputs of the jobs that have ended, and return the wait for the others; None if there are none.

    A decided approval begins its call. So the pass is repeated until no job has ended.
    """
    while waits := _waits(answer):
        existing = _jobs_of_step(attempt, answer)
        ended = _ended_jobs(attempt, [existing[wait["job_id"]] for _, wait in waits if wait["job_id"] in existing])
        if not ended:
            return _wait(attempt, answer, tools, waits, existing)
        for item, wait in waits:
            if (job := ended.get(wait["job_id"])) is None:
                continue
            if item["type"] == "mcp_call" and "response_id" in wait:
                _settle_agent(answer, item, *job)
            else:
                _settle(answer, tools, item, wait, job[0])
    return None


def end_after(answer: AnswerWriter, tools: TurnTools) -> Literal["stop"] | LimitReached | None:
    """Return why the turn ends after this step, or None if it continues with the outputs."""
    items = answer.call_items
    if any(item["type"] not in ("mcp_call", "mcp_approval_request") for item in items):
        return "stop"  # the caller runs some of the calls
    if any(item["type"] == "mcp_approval_request" for item in items) and not tools.waits_for_approval:
        return "stop"  # the next turn brings the decision
    if any(item.get("status") == "incomplete" for item in items):
        return "max_tool_calls"
    if tools.max_steps is not None and answer.transcript.step.number + 1 >= tools.max_steps:
        return "max_steps"
    return None


def _calls(answer: AnswerWriter) -> int:
    """Return how many calls the server has begun for the response."""
    items = [*answer.transcript.items, *answer.call_items]
    return sum(
        item["type"] == "mcp_approval_request" or (item["type"] == "mcp_call" and not item["approval_request_id"])
        for item in items
    )


def _begin_call(
    answer: AnswerWriter,
    tool: ServerTool,
    arguments: str,
    *others: NewEvent,
    tokens: int = 0,
    approval_id: str | None = None,
) -> None:
    label, name = tool.label, tool.tool.name
    item = mcp_call_item(answer.call_suffix, label, name, arguments, approval_request_id=approval_id)
    if tool.handoff:
        _hand_off(answer, tool, item, tokens)
        return
    started = _started(tool, item)
    answer.add_item(item, tokens, *others, started)
    answer.transcript.waits[item["id"]] = started[1]


def _hand_off(answer: AnswerWriter, tool: ServerTool, item: Item, tokens: int) -> None:
    """Let another agent continue the turn: there is nothing to wait for."""
    assert tool.agent is not None
    output = f"{tool.agent['name']} has taken over."
    payload = {"item_id": item["id"], "agent": tool.agent}
    answer.add_item({**item, "status": "completed", "output": output}, tokens, (HANDED_OFF, payload))
    answer.transcript.hand_off(item["id"], tool.agent)


def _started(tool: ServerTool, item: Item) -> NewEvent:
    job = {"item_id": item["id"], "job_id": new_id("job")}
    if tool.agent is not None:
        context = {} if tool.context == "task" else {"context": tool.context}
        return AGENT_STARTED, {**job, "response_id": new_id("resp"), "agent": tool.agent, **context}
    return CALL_STARTED, {**job, "server_label": tool.label, "name": tool.tool.name}


def _requested(
    answer: AnswerWriter,
    tools: TurnTools,
    approval_id: str,
    reason: str,
    call_id: str | None = None,
    tool: ServerTool | None = None,
) -> NewEvent:
    """Announce a request for approval, and the job that the turn waits for, if it does."""
    payload = {
        "item_id": approval_id,
        "job_id": new_id("job") if tools.waits_for_approval else None,
        "reason": reason,
        "expires_at": int(expiry(tools.expires_after).timestamp()),
        "call_id": call_id,
        **({"tool_digest": tool.tool.digest} if tool and tool.tool.digest else {}),
    }
    answer.transcript.waits[approval_id] = payload
    return APPROVAL_REQUESTED, payload


def _waits(answer: AnswerWriter) -> list[tuple[Item, Mapping[str, Any]]]:
    """Return the undecided approvals, and the calls without an output, that have a job to wait for.

    A call of which it is not known whether it was executed waits for an approval instead.
    """
    waits = answer.transcript.waits
    approvals = [item for item in answer.call_items if _is_open_approval(answer, item)]
    in_doubt = {waits[item["id"]].get("call_id") for item in approvals}
    calls = [item for item in answer.call_items if not is_done(item) and item["id"] not in in_doubt]
    return [(item, waits[item["id"]]) for item in [*approvals, *calls] if waits.get(item["id"], {}).get("job_id")]


def _is_open_approval(answer: AnswerWriter, item: Item) -> bool:
    if item["type"] != "mcp_approval_request":
        return False
    wait = answer.transcript.waits.get(item["id"], {})
    if (call_id := wait.get("call_id")) is None:
        return all(call.get("approval_request_id") != item["id"] for call in answer.call_items)
    call, waits = next(call for call in answer.call_items if call["id"] == call_id), answer.transcript.waits
    *_, last = (each["id"] for each in answer.call_items if waits.get(each["id"], {}).get("call_id") == call_id)
    return not is_done(call) and item["id"] == last and waits[call_id].get("approval_id") != last


def _jobs_of_step(attempt: Attempt, answer: AnswerWriter) -> Mapping[str, Job]:
    """Return the jobs that the step's calls and approvals have by now, by their ids."""
    waits = [answer.transcript.waits.get(item["id"], {}) for item in answer.call_items]
    ids = [wait["job_id"] for wait in waits if wait.get("job_id")]
    with attempt.database.connection() as connection:
        return {job.id: job for job in jobs.read_many(connection, ids, attempt.job.account_id)}


def _ended_jobs(attempt: Attempt, waited_for: Sequence[Job]) -> Mapping[str, tuple[Job, Response | None]]:
    """Return the jobs that have ended, or that were cancelled because others decided the wait, with their responses."""
    over = [job for job in waited_for if job.ended or job.cancel_requested_at is not None]
    turns = {job.id: job.arguments["response_id"] for job in over if job.kind == "turn.run"}
    if not turns:
        return {job.id: (job, None) for job in over}
    access = Access.account(attempt.job.account_id)
    with attempt.database.connection() as connection:
        answers = {id_: responses.read(connection, response_id, access) for id_, response_id in turns.items()}
    return {job.id: (job, answers.get(job.id)) for job in over}


def _settle(answer: AnswerWriter, tools: TurnTools, item: Item, wait: Mapping[str, Any], job: Job) -> None:
    if item["type"] == "mcp_approval_request":
        _settle_approval(answer, tools, item, wait, job.result or {})
    elif (job.result or {}).get("in_doubt"):
        _settle_doubt(answer, tools, item)
    else:
        fields = {"item_id": item["id"], "job_id": job.id}
        done = call_outcome(item, job)
        answer.complete_item(done, (CALL_COMPLETED, {**fields, "status": done["status"]}))


def _settle_agent(answer: AnswerWriter, item: Item, job: Job, response: Response | None) -> None:
    done = agent_outcome(item, response)
    fields = {"item_id": item["id"], "job_id": job.id, "response_id": response.id if response else None}
    answer.complete_item(done, (AGENT_COMPLETED, {**fields, "status": done["status"]}))


def _settle_approval(
    answer: AnswerWriter, tools: TurnTools, request: Item, wait: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Begin, repeat or refuse a call as it was decided."""
    status, text = result.get("status", "expired"), result.get("text")
    decided = (APPROVAL_DECIDED, {"item_id": request["id"], "status": status, "reason": text})
    tool = tools.named(request["server_label"], request["name"])
    if (call_id := wait.get("call_id")) is not None:
        call = next(call for call in answer.call_items if call["id"] == call_id)
        if status == "approved" and tool is not None:
            _repeat(answer, tool, call, request["id"], decided)
        else:
            answer.complete_item({**call, "status": "failed", "error": execution_error(IN_DOUBT)}, decided)
    elif status == "approved" and tool is not None and _is_as_approved(tool, wait.get("tool_digest")):
        _begin_call(answer, tool, request["arguments"], decided, approval_id=request["id"])
    else:
        error = execution_error(_refusal("tool_changed" if status == "approved" and tool is not None else status, text))
        item = mcp_call_item(
            answer.call_suffix, request["server_label"], request["name"], request["arguments"], status="failed",
            error=error, approval_request_id=request["id"],
        )  # fmt: skip
        answer.add_item(item, 0, decided)


def _refusal(status: str, text: str | None) -> str:
    match status:
        case "approved":
            return "The tool is no longer available."
        case "tool_changed":
            return "The tool's definition has changed since a person has approved this call."
        case "denied":
            return denial_text(text)
        case _:
            return "Nobody has approved this call in time."


def _is_as_approved(tool: ServerTool, digest: str | None) -> bool:
    """Return whether a tool still has the definition with which a person has approved its call."""
    return not digest or digest == tool.tool.digest


def _settle_doubt(answer: AnswerWriter, tools: TurnTools, item: Item) -> None:
    """Ask a person whether to repeat a call that may have been executed; or say so, where the turn does not wait."""
    if not tools.waits_for_approval:
        answer.complete_item({**item, "status": "failed", "error": execution_error(IN_DOUBT)})
        return
    request = approval_request_item(new_id("mcpr"), item["server_label"], item["name"], item["arguments"])
    answer.add_item(request, 0, _requested(answer, tools, request["id"], "in_doubt", item["id"]))


def _repeat(answer: AnswerWriter, tool: ServerTool, call: Item, approval_id: str, decided: NewEvent) -> None:
    type_, payload = _started(tool, call)
    payload = {**payload, "approval_id": approval_id}
    answer.write_events(decided, (type_, payload))
    answer.transcript.waits[call["id"]] = payload


def _wait(
    attempt: Attempt,
    answer: AnswerWriter,
    tools: TurnTools,
    waits: Sequence[tuple[Item, Mapping[str, Any]]],
    existing: Mapping[str, Job],
) -> WaitForChildren:
    """Return the wait for jobs that have not ended, and insert those that do not exist."""
    with attempt.database.connection() as connection:
        new = [(item, wait) for item, wait in waits if wait["job_id"] not in existing]
        spent = _spent(connection, answer) if tools.is_root and not existing else None
        asked = sum("response_id" in wait for _, wait in new)
        shared = {"siblings": asked, "spent": spent or Draw()}
        children = [tools.make_child(connection, item, {**wait, **shared}) for item, wait in new]
        tools.check_money(connection, children)
    return WaitForChildren(
        [child.job for child in children],
        tools.join_rule if asked == len(waits) else "all",  # the rule is for agents that are asked at once
        reserve=partial(tools.reserve_money, children),
        record=partial(_record, children),
        spent=spent,
    )


def _spent(connection: Connection, answer: AnswerWriter) -> Draw:
    """Return what the root of a tree has used since its budget counted it. Other turns have drawn what they use."""
    usage, transcript = add_usage(answer.transcript.usage, answer.step_usage), answer.transcript
    uncounted = usage.input_tokens + usage.output_tokens - transcript.counted
    return Draw(tokens=uncounted, money=tree_money.cost(connection, answer.response, answer.step_usage))


def _record(children: Sequence[Child], connection: Connection) -> None:
    for child in children:
        child.record(connection)


def approvals_of_next_turn(answer: AnswerWriter, tools: TurnTools) -> Sequence[Approval]:
    """Return the approvals that the turn ends without: the next one brings the decisions."""
    if tools.waits_for_approval:
        return ()
    waits = answer.transcript.waits
    requests = [item for item in answer.call_items if item["type"] == "mcp_approval_request"]
    return [new_approval(answer.response, item, waits[item["id"]]) for item in requests if item["id"] in waits]
