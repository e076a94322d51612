"""Find the tools that the server runs for a turn: of MCP servers, of the platform, and the agents to delegate to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from models.agents import tool_pins
from models.jobs import budgets, jobs
from models.jobs.attempt_context import Attempt, WaitForChildren
from models.jobs.budgets import BudgetLimits
from models.jobs.jobs import Job, NewJob
from models.platform.database import Connection
from models.platform.settings import Settings
from models.serving.served_models import is_known
from models.turns.responses import Response
from pipelines.agents import approvals, definitions, delegation, tool_lists, tree_money
from pipelines.agents.definitions import MAX_STEPS, Definition
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.servers import AGENTS_LABEL, ServerReference, references
from pipelines.agents.turn_tools import Child, ServerTool, ToolListing, TurnTools
from pipelines.chat.client_tools import function_name
from pipelines.routing.residency import check_dispatch

#: Seconds that a turn waits for the lists of tools.
LIST_TIMEOUT = 30.0


def load_tools(
    settings: Settings,
    connection: Connection,
    attempt: Attempt,
    response: Response,
    agent: Mapping[str, Any] | None,
    step: int,
) -> TurnTools | WaitForChildren:
    """Return what a turn may call on the server in a step; or the jobs that ask servers for their tools.

    agent  the agent that has taken over the turn; None: the one that was asked
    """
    reference = agent or response.request.get("agent")
    check_dispatch(settings, connection, attempt.job)
    if reference is None and not _has_servers(response.request):
        return TurnTools(response.request, decided=approvals.taken_by(connection, response))
    definition = definitions.read_definition(connection, response.account_id, reference) if reference else None
    if definition is not None and definition.residency == "local":
        check_dispatch(settings, connection, attempt.job, agent="local")
    request = definitions.apply(definition, response.request) if definition else response.request
    effective = replace(response, request=dict(request))
    servers = references(settings, connection, effective, request.get("tools") or [])
    account_id = response.account_id
    lists = {server.label: tool_lists.read(connection, account_id, server, expired=step > 0) for server in servers}
    unknown = [server for server in servers if lists[server.label] is None]
    errors, waits = _list_jobs(connection, attempt.job, effective, unknown, reference)
    if waits is not None:
        return waits
    # A list may expire while the turn waits for its job.
    lists |= {server.label: tool_lists.read(connection, account_id, server, expired=True)
              for server in unknown if errors[server.label] is None}  # fmt: skip
    tools = [*_listed(servers, lists, definition), *_agents(connection, attempt.job, response, definition)]
    listings = [
        ToolListing(server.label, lists[server.label] or (), errors.get(server.label))
        for server in servers
        if server.source != "platform"
    ]
    listings += _unknown_servers(request, servers)
    return TurnTools(
        request=_engine_request(request, tools, step),
        server_tools={function_name(each.tool.name, each.label): each for each in tools},
        listings=listings,
        decided=approvals.taken_by(connection, response),
        waits_for_approval=request.get("approvals") == "wait",
        expires_after=approvals.expires_after(settings, definition),
        max_tool_calls=request.get("max_tool_calls"),
        max_steps=definition.limits.steps if definition else MAX_STEPS,
        max_tokens=_limits(connection, attempt.job, effective, definition),
        is_root=attempt.job.parent_id is None,
        join_rule=definition.join if definition else "all",
        make_child=partial(_make_child, settings, attempt.job, effective, reference, tools),
        check_money=partial(delegation.check_money, settings, attempt.job),
        reserve_money=partial(delegation.reserve_money, settings, attempt.job),
    )


def _has_servers(request: Mapping[str, Any]) -> bool:
    return any(tool["type"] == "mcp" for tool in request.get("tools") or ())


def _list_jobs(
    connection: Connection,
    job: Job,
    response: Response,
    servers: Sequence[ServerReference],
    agent: Mapping[str, Any] | None,
) -> tuple[Mapping[str, str | None], WaitForChildren | None]:
    """Return why servers could not be asked for their tools, and the wait for those that have not been asked."""
    if not servers:
        return {}, None
    asked = {each.unique_key: each for each in jobs.children(connection, job.id) if each.kind == "tool.list"}
    new = [tool_lists.list_job(response, server, agent) for server in servers]
    unfinished = [each for each in new if each.unique_key not in asked or _is_awaited(asked[each.unique_key])]
    if unfinished:
        missing = [each for each in unfinished if each.unique_key not in asked]
        return {}, WaitForChildren(missing, timeout=LIST_TIMEOUT)
    return {server.label: _list_error(asked[each.unique_key])
            for server, each in zip(servers, new, strict=True)}, None  # fmt: skip


def _is_awaited(job: Job) -> bool:
    return not job.ended and datetime.now(UTC) < job.created_at + timedelta(seconds=LIST_TIMEOUT)


def _unknown_servers(request: Mapping[str, Any], servers: Sequence[ServerReference]) -> Iterator[ToolListing]:
    """Yield a listing with an error for each label that no server has."""
    known = {AGENTS_LABEL, *(server.label for server in servers)}
    labels = [tool["server_label"] for tool in request.get("tools") or () if tool["type"] == "mcp"]
    for label in dict.fromkeys(labels):
        if label not in known:
            yield ToolListing(label, (), f"No MCP server with the label '{label}' is registered.")


def _list_error(job: Job) -> str | None:
    if not job.ended:
        return f"No worker has listed the server's tools within {LIST_TIMEOUT:g} seconds."
    if job.result is not None and job.result.get("error") is None:
        return None
    error = (job.result or {}).get("error") or job.error or {}
    return str(error.get("message") or "The server did not list its tools.")


def _listed(
    servers: Sequence[ServerReference],
    lists: Mapping[str, Sequence[ListedTool] | None],
    definition: Definition | None,
) -> Iterator[ServerTool]:
    for server in servers:
        for tool in lists[server.label] or ():
            policy = approvals.policy_of(server, definition)
            yield ServerTool(server.label, tool, policy, pin_key=server.pin_key)


def _agents(
    connection: Connection, job: Job, response: Response, definition: Definition | None
) -> Iterator[ServerTool]:
    """Yield the agents that a turn may delegate to, as far as the limits of its tree allow another one.

    One that was deleted, or whose model is not known, is left out, and one that would take over the turn with another
    model.
    """
    if definition is None or not definition.agents:
        return
    left = budgets.remaining(connection, job.root_id or job.id)
    may_delegate = left is None or (
        (left.depth is None or job.depth < left.depth) and (left.calls is None or left.calls > 0)
    )
    for agent in definition.agents:
        reference = definitions.current_agent(connection, job.account_id, agent.name)
        if reference is None or not (agent.handoff or may_delegate):
            continue
        other = definitions.read_definition(connection, job.account_id, reference)
        if other.model in (None, response.engine_model) or (not agent.handoff and is_known(connection, other.model)):
            tool = delegation.handoff_tool if agent.handoff else delegation.delegation_tool
            yield ServerTool(
                AGENTS_LABEL,
                tool(agent, other.description),
                approvals.policy_of(None, definition),
                agent=reference,
                handoff=agent.handoff,
                context=agent.context,
            )


def _limits(connection: Connection, job: Job, response: Response, definition: Definition | None) -> int | None:
    """Return the most tokens that the turn itself may use: of what it has drawn, or of what its tree has left."""
    if (draw := job.arguments.get("budget_draw")) is not None:
        left = BudgetLimits(tokens=draw["tokens"] or None, money=Decimal(draw["money"]) or None)
    elif definition is None or job.parent_id is not None:
        return None
    else:
        left = budgets.remaining(connection, job.id) or BudgetLimits()
    affordable = tree_money.affordable_tokens(connection, response, left.money) if left.money is not None else None
    return min((tokens for tokens in (left.tokens, affordable) if tokens is not None), default=None)


def _engine_request(request: Mapping[str, Any], tools: Sequence[ServerTool], step: int) -> Mapping[str, Any]:
    """Return the request with the server's tools as groups of functions, the form in which engines know them."""
    own = [tool for tool in request.get("tools") or () if tool["type"] != "mcp"]
    labels = dict.fromkeys(each.label for each in tools)
    groups = [
        {"type": "namespace", "name": label, "description": "",
         "tools": [_function(each.tool) for each in tools if each.label == label]}
        for label in labels
    ]  # fmt: skip
    return {**request, "tools": [*own, *groups], "tool_choice": _tool_choice(request, step)}


def _function(tool: ListedTool) -> Mapping[str, Any]:
    return {"type": "function", "name": tool.name, "description": tool.description,
            "parameters": tool.input_schema, "strict": False}  # fmt: skip


def _tool_choice(request: Mapping[str, Any], step: int) -> Any:
    """Return the choice of tools. One that has to be called is called in the first step only."""
    choice = request.get("tool_choice") or "auto"
    if choice in ("auto", "none"):
        return choice
    if step:
        return "auto"
    return choice


def _make_child(
    settings: Settings,
    job: Job,
    response: Response,
    agent: Mapping[str, Any] | None,
    tools: Sequence[ServerTool],
    connection: Connection,
    item: Mapping[str, Any],
    wait: Mapping[str, Any],
) -> Child:
    """Return the job for a call, or for a request for approval."""
    if item["type"] == "mcp_approval_request":
        return approvals.gate(response, item, wait)
    if "response_id" in wait:
        return delegation.child_turn(settings, connection, job, response, item, wait)
    return Child(_call_job(response, item, wait, agent), _repin(response, item, tools))


def _repin(response: Response, item: Mapping[str, Any], tools: Sequence[ServerTool]) -> Callable[[Connection], None]:
    """Return a function that pins the definition of a changed tool whose call a person has approved."""
    name = (item["server_label"], item["name"])
    tool = next((each for each in tools if (each.label, each.tool.name) == name), None)
    if tool is None or not tool.tool.changed or item["approval_request_id"] is None:
        return lambda _: None
    return partial(
        tool_pins.repin,
        account_id=response.account_id,
        server_key=tool.pin_key,
        tool_name=tool.tool.name,
        digest=tool.tool.digest,
    )


def _call_job(
    response: Response, item: Mapping[str, Any], wait: Mapping[str, Any], agent: Mapping[str, Any] | None
) -> NewJob:
    """Return the job of a tool call. A call that a person lets be repeated is another job than the first."""
    repeated = f":{wait['approval_id']}" if wait.get("approval_id") else ""
    return NewJob(
        "tool.call",
        response.account_id,
        arguments={
            "response_id": response.id,
            "item_id": item["id"],
            "server_label": item["server_label"],
            "name": item["name"],
            "arguments": item["arguments"],
            "approved": bool(repeated),
            **({"agent": dict(agent)} if agent else {}),
        },
        id=wait["job_id"],
        unique_key=f"tool_call:{item['id']}{repeated}",
    )
