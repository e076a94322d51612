"""Request and response schemas of `/v1/agents`."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, Tag
from typing_extensions import TypedDict

from models.agents.agents import Agent
from models.jobs.jobs import JoinRule
from pipelines.agents.definitions import MAX_DEPTH, AgentLimits, parse
from pipelines.chat.memory_prompt import MAX_MEMORIES
from pipelines.requests.tool_types import MAX_TOOLS, Tool
from pipelines.requests.tools_and_formats import TextOptions
from pipelines.requests.turn_request import Metadata
from pipelines.requests.validation import RequestBody, branch, discriminate_text

AgentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

#: An amount of money in the account's currency.
Amount = Annotated[str, StringConstraints(pattern=r"^\d{1,12}(\.\d{1,6})?$")]

#: Agents that one agent may delegate to.
MAX_SUB_AGENTS = 32


class SubAgentObject(RequestBody):
    """An agent to delegate to. With `handoff` it takes over the turn; `context` is what it reads."""

    name: AgentName
    handoff: bool = False
    context: Literal["task", "conversation"] = "task"


SubAgents = Annotated[
    list[
        Annotated[
            Annotated[AgentName, Tag(branch("text"))] | Annotated[SubAgentObject, Tag(branch("other"))],
            discriminate_text("an object"),
        ]
    ],
    Field(max_length=MAX_SUB_AGENTS),
]


class LimitsParameters(RequestBody):
    """The limits of an agent's turn. All but `steps` hold for the whole tree of the agents that it delegates to.

    `steps` are generations of one turn, `tokens` those of all prompts and answers, `money` an amount in the account's
    currency, `depth` delegations below each other, `children` all delegations, `seconds` the time until the answer.
    """

    steps: int | None = Field(None, ge=1, le=100)
    tokens: int | None = Field(None, ge=1, le=1_000_000_000)
    money: Amount | None = None
    depth: int | None = Field(None, ge=0, le=MAX_DEPTH)
    children: int | None = Field(None, ge=0, le=1000)
    seconds: int | None = Field(None, ge=1, le=86_400)


class ToolFilter(RequestBody):
    """Tools by their names, or those whose server says that they only read."""

    tool_names: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=128)] | None = None
    read_only: bool | None = None


class ApprovalRules(RequestBody):
    """Which calls need an approval, and which do not.

    `always` and `never` name tools, as `NAME` or `LABEL.NAME`; `default` is for all others. Calls that cost more than
    `above` need an approval, too; `costs` has the price of a call by the name of its tool. `expires_after` are the
    seconds in which an approval can be given, if these are less than the installation's.
    """

    always: ToolFilter | None = None
    never: ToolFilter | None = None
    default: Literal["always", "never", "not_read_only"] | None = None
    above: Amount | None = None
    costs: Annotated[dict[Annotated[str, Field(max_length=200)], Amount], Field(max_length=128)] | None = None
    expires_after: int | None = Field(None, ge=60, le=31_536_000)


ApprovalPolicy = Annotated[
    Annotated[Literal["always", "never", "not_read_only"], Tag(branch("text"))]
    | Annotated[ApprovalRules, Tag(branch("other"))],
    discriminate_text("an object"),
]


class AgentMemory(RequestBody):
    """How turns of an agent use memories, where their requests say nothing else: see the `memory` of responses.

    Whose memories they are is up to the request.
    """

    recall: bool | None = None
    remember: bool | None = None
    limit: int | None = Field(None, ge=1, le=MAX_MEMORIES)


class DefinitionParameters(RequestBody):
    """What an agent is. A change of these fields makes a new version, and replaces each of them as a whole.

    description   what others should delegate to it
    instructions  precede those of requests
    model         of the engine; by default the one that is served
    tools         as in responses; a request may add some. Credentials of MCP servers are encrypted and never returned
    agents        those that it may delegate to, itself included
    join          how many of the agents that are asked at once have to answer
    approval      which calls need a person's approval; null: as their server says
    residency     `local`: its turns are refused where the model is served by another host
    text          the format of its answers, unless a request has one

    `max_output_tokens` limits the answer of a turn, also where its request has more or no limit.
    """

    description: str | None = Field(None, max_length=1024)
    instructions: str | None = Field(None, max_length=131_072)
    model: Annotated[str, Field(max_length=256)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    agents: SubAgents | None = None
    join: JoinRule | None = None
    memory: AgentMemory | None = None
    limits: LimitsParameters | None = None
    approval: ApprovalPolicy | None = None
    residency: Literal["local", "any"] | None = None
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)


class CreateAgent(DefinitionParameters):
    """The body of `POST /v1/agents`."""

    name: AgentName
    metadata: Metadata | None = None


class UpdateAgent(DefinitionParameters):
    """The body of `PATCH /v1/agents/{id}`. Omitted fields stay unchanged.

    With `expected_version` the agent is changed only if it has that version.
    """

    name: AgentName | None = None
    metadata: Metadata | None = None
    expected_version: int | None = Field(None, ge=1)


class LimitsObject(TypedDict):
    """The limits of an agent's turn; null: none."""

    steps: int
    tokens: int | None
    money: str | None
    depth: int
    children: int
    seconds: int | None


class AgentObject(TypedDict):
    """A version of an agent. Times are in Unix seconds."""

    id: str
    object: Literal["agent"]
    name: str
    version: int
    description: str
    instructions: str | None
    model: str | None
    tools: list[dict[str, Any]]
    agents: list[dict[str, Any]]
    join: JoinRule
    memory: dict[str, Any] | None
    limits: LimitsObject
    approval: Any
    residency: str
    text: dict[str, Any] | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    created_by: str | None
    created_at: int
    updated_at: int


class AgentDeleted(TypedDict):
    """A deleted agent."""

    id: str
    object: Literal["agent.deleted"]
    deleted: Literal[True]


def agent_object(agent: Agent) -> AgentObject:
    """Convert a version of an agent to its API object. Credentials are not part of it."""
    definition = parse(agent.definition)
    return {
        "id": agent.id,
        "object": "agent",
        "name": agent.name,
        "version": agent.version,
        "description": definition.description,
        "instructions": definition.instructions,
        "model": definition.model,
        "tools": [dict(tool) for tool in definition.tools],
        "agents": [{"name": each.name, "handoff": each.handoff, "context": each.context} for each in definition.agents],
        "join": definition.join,
        "memory": dict(definition.memory) if definition.memory else None,
        "limits": _limits_object(definition.limits),
        "approval": definition.approval,
        "residency": definition.residency,
        "text": dict(definition.text) if definition.text else None,
        "max_output_tokens": definition.max_output_tokens,
        "metadata": agent.metadata,
        "created_by": agent.created_by,
        "created_at": int(agent.created_at.timestamp()),
        "updated_at": int(agent.updated_at.timestamp()),
    }


def _limits_object(limits: AgentLimits) -> LimitsObject:
    money: Decimal | None = limits.money
    return {
        "steps": limits.steps,
        "tokens": limits.tokens,
        "money": None if money is None else f"{money:f}",
        "depth": limits.depth,
        "children": limits.children,
        "seconds": limits.seconds,
    }
