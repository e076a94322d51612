"""What an agent is: its instructions, tools, other agents and limits; and the request of a turn with them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Lock
from typing import Any

from models.accounts.residency import strictest
from models.agents import agents
from models.jobs.jobs import JoinRule
from models.platform.database import Connection
from models.platform.errors import PermanentFailure

#: The model of a request that an agent answers: `agent/NAME`.
MODEL_PREFIX = "agent/"

#: Delegations below each other at most.
MAX_DEPTH = 5

#: Generations of a turn without an agent.
MAX_STEPS = 50


@dataclass(frozen=True, slots=True)
class SubAgent:
    """An agent that another one may delegate to.

    handoff  whether it takes over the turn, instead of answering to the agent
    context  what it reads: the task that the agent writes, or also the conversation so far
    """

    name: str
    handoff: bool = False
    context: str = "task"


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """The limits of a turn of an agent. All but `steps` hold for the whole tree of the agents that it delegates to.

    steps     generations of one turn
    tokens    of all prompts and answers
    money     in the account's currency
    depth     delegations below each other
    children  delegations
    seconds   from the request to the answer
    """

    steps: int = 12
    tokens: int | None = None
    money: Decimal | None = None
    depth: int = 3
    children: int = 16
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """A version of an agent.

    description        what others should delegate to it
    model              the engine's model; None: the default
    tools              as a turn stores them
    mcp_credentials    sealed, by the label of an MCP server
    join               how many of the agents that are asked at once have to answer
    approval           when a call needs a person's approval: see `pipelines.agents.approvals`; None: as its server says
    residency          `local`: its turns never leave the installation
    text               the output format of its answers
    max_output_tokens  of a turn, unless its request has fewer
    """

    description: str = ""
    instructions: str | None = None
    model: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    mcp_credentials: Mapping[str, str] = field(default_factory=dict)
    agents: Sequence[SubAgent] = ()
    join: JoinRule = "all"
    memory: Mapping[str, Any] | None = None
    limits: AgentLimits = AgentLimits()
    approval: Any = None
    residency: str = "any"
    text: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None


def parse(definition: Mapping[str, Any]) -> Definition:
    """Parse a stored definition. Unknown keys, of a later version, are ignored."""
    known = {name: value for name, value in definition.items() if name in Definition.__slots__ and value is not None}
    known["agents"] = [SubAgent(**each) for each in definition.get("agents") or ()]
    limits = dict(definition.get("limits") or {})
    if limits.get("money") is not None:
        limits["money"] = Decimal(limits["money"])
    known["limits"] = AgentLimits(**{name: value for name, value in limits.items() if value is not None})
    return Definition(**known)


#: Parsed versions, which never change, by account, agent and number.
_VERSIONS: OrderedDict[tuple[str, str, int], Definition] = OrderedDict()

#: Versions that a process keeps.
MAX_VERSIONS = 512

_LOCK = Lock()


def read_definition(connection: Connection, account_id: str, agent: Mapping[str, Any]) -> Definition:
    """Return the version of an agent that a turn names. Raises PermanentFailure if it was erased."""
    key = (account_id, agent["id"], agent["version"])
    with _LOCK:
        if (known := _VERSIONS.get(key)) is not None:
            _VERSIONS.move_to_end(key)
            return known
    stored = agents.read_version(connection, account_id, agent["id"], agent["version"])
    if stored is None:
        raise PermanentFailure(f"The agent '{agent['name']}' was erased.", code="deleted")
    definition = parse(stored)
    with _LOCK:
        _VERSIONS[key] = definition
        if len(_VERSIONS) > MAX_VERSIONS:
            _VERSIONS.popitem(last=False)
    return definition


def current_agent(connection: Connection, account_id: str, name: str) -> Mapping[str, Any] | None:
    """Return id, name and version of an agent of the account, as a turn names it."""
    agent = agents.named(connection, account_id, name)
    return {"id": agent.id, "name": agent.name, "version": agent.version} if agent else None


def apply(definition: Definition, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of a turn with what its agent adds. What the request says itself comes second, or wins.

    Of two tools with one name the agent's counts, so that a request cannot replace one that the instructions name.
    """
    instructions = [text for text in (definition.instructions, request["instructions"]) if text]
    limits = [limit for limit in (definition.max_output_tokens, request.get("max_output_tokens")) if limit is not None]
    own_format = ((request.get("text") or {}).get("format") or {}).get("type", "text") != "text"
    return {
        **request,
        "instructions": "\n\n".join(instructions) or None,
        "tools": _tools(definition, request),
        "mcp_credentials": _credentials(definition, request),
        "memory": {**(definition.memory or {}), **(request.get("memory") or {})} or None,
        "text": request.get("text") if own_format or not definition.text else definition.text,
        "max_output_tokens": min(limits) if limits else None,
        "residency": strictest(definition.residency, request.get("residency")),
    }


def _tools(definition: Definition, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = {_tool_name(tool) for tool in definition.tools}
    return [*definition.tools, *(tool for tool in request.get("tools") or () if _tool_name(tool) not in names)]


def _credentials(definition: Definition, request: Mapping[str, Any]) -> dict[str, str]:
    """Return the sealed credentials. Those of a request are never sent to a server of the agent."""
    labels = {tool.get("server_label") for tool in definition.tools}
    own = (request.get("mcp_credentials") or {}).items()
    return {**{label: sealed for label, sealed in own if label not in labels}, **definition.mcp_credentials}


def _tool_name(tool: Mapping[str, Any]) -> str:
    """Return what identifies a tool: the label of a server, its name, or the type of one without a name."""
    return str(tool.get("server_label") or tool.get("name") or tool["type"])
