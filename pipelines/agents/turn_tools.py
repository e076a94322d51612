"""What a turn may call on the server, and its limits: of its request, of its agent, and of the tree that it is in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from models.agents.approvals import Approval
from models.billing.spending import MostTokens
from models.jobs.jobs import JoinRule, NewJob
from models.platform.database import Connection
from pipelines.agents.listed_tool import ListedTool


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the server runs.

    label     of its server: `sangha` for the platform's own, `agents` for an agent to delegate to
    approval  when its calls need an approval: see `pipelines.agents.approvals`
    agent     of a delegation, the agent's id, name and version
    handoff   whether the agent takes over the turn, instead of answering to it
    context   what the agent reads: its task, or also the conversation
    pin_key   of its server's pins
    """

    label: str
    tool: ListedTool
    approval: Any = "never"
    agent: Mapping[str, Any] | None = None
    handoff: bool = False
    context: str = "task"
    pin_key: str = ""


@dataclass(frozen=True, slots=True)
class ToolListing:
    """What an MCP server of the request offers, or why it could not be asked."""

    label: str
    tools: Sequence[ListedTool]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Child:
    """A job that a call waits for, and what is stored in the transaction that inserts it.

    most_tokens  what it can be billed for; None: nothing
    """

    job: NewJob
    record: Callable[[Connection], None] = lambda _: None
    most_tokens: MostTokens | None = None


#: Returns the job for a call that the server runs, or for an approval, by the item and the event that announced it.
MakeChild = Callable[[Connection, Mapping[str, Any], Mapping[str, Any]], Child]


#: Checks, or reserves, what jobs can cost.
CheckMoney = Callable[[Connection, Sequence[Child]], None]
ReserveMoney = Callable[[Sequence[Child], Connection], None]


def _no_child(_: Connection, __: Mapping[str, Any], ___: Mapping[str, Any]) -> Child:
    raise TypeError("this turn has no tools that the server runs")


@dataclass(frozen=True, slots=True)
class TurnTools:
    """What a turn may call on the server.

    request             the parameters of the turn with those of its agent; server tools are functions of a namespace
    server_tools        by the engine's name of the function
    listings            of the MCP servers that the request names
    decided             the requests for approval of earlier turns that this one answers
    waits_for_approval  whether the turn waits for decisions, instead of ending with the requests
    expires_after       how long approvals can be given
    max_tool_calls      calls that the server runs for this turn
    max_steps           generations of this turn
    max_tokens          input and output tokens of its steps, without those that its tree's budget has counted
    is_root             whether the turn is the root of a tree, whose budget counts its steps one by one
    join_rule           how many of the agents that are asked at once have to answer
    """

    request: Mapping[str, Any]
    server_tools: Mapping[str, ServerTool] = field(default_factory=dict)
    listings: Sequence[ToolListing] = ()
    decided: Sequence[Approval] = ()
    waits_for_approval: bool = False
    expires_after: timedelta = timedelta(days=1)
    max_tool_calls: int | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    is_root: bool = True
    join_rule: JoinRule = "all"
    make_child: MakeChild = _no_child
    check_money: CheckMoney = lambda connection, children: None
    reserve_money: ReserveMoney = lambda children, connection: None

    def in_later_steps(self) -> "TurnTools":
        """Return the tools for the steps after the first, in which no call is required any more."""
        if self.request.get("tool_choice") in (None, "auto", "none"):
            return self
        return replace(self, request={**self.request, "tool_choice": "auto"})

    def named(self, label: str, name: str) -> ServerTool | None:
        """Return the tool of a server, or None if the turn does not have it any more."""
        tools = self.server_tools.values()
        return next((each for each in tools if each.label == label and each.tool.name == name), None)
