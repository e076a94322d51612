"""Delegate to an agent: a turn of its own below the one that delegates, or its takeover of that turn."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from typing import Any

import orjson

from models.access import api_keys
from models.accounts import admin
from models.accounts.accounts import Caller, Role
from models.accounts.plans import Allowance
from models.billing import spending
from models.billing.prepaid import METHOD_GATEWAYS
from models.jobs import budgets
from models.jobs.budgets import Draw, Remaining
from models.jobs.jobs import Job
from models.jobs.usage import KEY_ARGUMENT
from models.platform.database import Connection
from models.platform.errors import BudgetExhausted, SpendingLimitReached
from models.platform.settings import Settings
from models.serving.served_models import read_models
from models.turns import responses
from models.turns.responses import Response
from pipelines.agents import definitions
from pipelines.agents.definitions import SubAgent
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.turn_tools import Child
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.prompt import thread_items
from pipelines.chat.start_turn import prepare_turn
from pipelines.inference.registry import default_description
from pipelines.routing.residency import ARGUMENT

#: The name of the tool with which an agent takes over a turn, as the OpenAI Agents SDK has it.
HANDOFF_PREFIX = "transfer_to_"

#: The smallest share of the tree's tokens with which a delegation is begun.
MIN_TOKENS = 64

#: The smallest amount of money that a share is rounded down to.
MONEY_UNIT = Decimal("0.000001")

TASK = {
    "type": "object",
    "properties": {
        "task": {"type": "string", "maxLength": 4000, "description": "What the agent should do. It reads nothing else."}
    },
    "required": ["task"],
    "additionalProperties": False,
}


def delegation_tool(agent: SubAgent, description: str) -> ListedTool:
    """Return the tool that delegates to an agent."""
    text = f"Delegate a task to the agent '{agent.name}', and read its answer. {description}".strip()
    return ListedTool(agent.name, text, TASK)


def handoff_tool(agent: SubAgent, description: str) -> ListedTool:
    """Return the tool that lets an agent take over the turn."""
    text = f"Let the agent '{agent.name}' answer instead. {description}".strip()
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    return ListedTool(f"{HANDOFF_PREFIX}{agent.name}", text, empty, read_only=True)


def child_turn(
    settings: Settings,
    connection: Connection,
    job: Job,
    response: Response,
    item: Mapping[str, Any],
    wait: Mapping[str, Any],
) -> Child:
    """Return the turn of the agent that a call delegates to. Raises BudgetExhausted if the tree has no tokens left."""
    agent = wait["agent"]
    sub_agent = SubAgent(agent["name"], context=wait.get("context", "task"))
    residency = job.arguments.get(ARGUMENT)
    caller = Caller(response.user_id or "", response.account_id, Role.MEMBER, residency=residency)
    turn = NewTurn(_request(response, agent), _input(connection, response, item, sub_agent), space=response.space)
    account = admin.read_account(connection, response.account_id)
    models = read_models(connection, default_description(settings), explicit=settings.default_model is not None)
    allowance = Allowance(context=models.default.description.context, billed=True)
    if account is not None:
        key_id = job.arguments.get(KEY_ARGUMENT)
        models_of_key = api_keys.models_of(connection, key_id, response.account_id) if key_id else None
        allowance = replace(allowance, limits=account.limits.within(models_of_key))
    prepared = prepare_turn(connection, caller, turn, wait["response_id"], wait["job_id"], allowance, models=models)
    key = {KEY_ARGUMENT: job.arguments[KEY_ARGUMENT]} if KEY_ARGUMENT in job.arguments else {}
    new_job = replace(
        prepared.job,
        unique_key=f"delegate:{item['id']}",
        draw=_share(connection, job, response, wait),
        arguments={**prepared.job.arguments, **key},
        owner_id=response.user_id,
    )
    child = replace(prepared.response, user_id=response.user_id)
    return Child(new_job, lambda inserting: responses.insert(inserting, child), prepared.most_tokens)


def check_money(settings: Settings, job: Job, connection: Connection, children: Sequence[Child]) -> None:
    """Raise BudgetExhausted if the account's money does not pay for the agents that a turn asks at once."""
    try:
        _with_money(spending.check, settings, job, connection, children)
    except SpendingLimitReached as error:
        raise BudgetExhausted(error.message) from None


def reserve_money(settings: Settings, job: Job, children: Sequence[Child], connection: Connection) -> None:
    """Reserve what the agents can cost, in the transaction that inserts their turns. Raises SpendingLimitReached."""
    _with_money(spending.reserve, settings, job, connection, children)


def _with_money(
    step: Callable[..., None], settings: Settings, job: Job, connection: Connection, children: Sequence[Child]
) -> None:
    if most := {child.job.id: child.most_tokens for child in children if child.most_tokens is not None}:
        required = settings.gateway in METHOD_GATEWAYS
        step(connection, job.account_id, most, key_id=job.arguments.get(KEY_ARGUMENT), method_required=required)


def _share(connection: Connection, job: Job, response: Response, wait: Mapping[str, Any]) -> Draw:
    """Return what one of the agents that are asked at once may use of its tree's budget; 0 where nothing limits it.

    What the turn itself has spent since its last wait is counted with this one. An agent that may delegate, too, gets
    half of its share: those that it asks draw from the rest.
    """
    left, spent = budgets.remaining(connection, job.root_id or job.id), wait["spent"]
    if left is None:
        return Draw(calls=1)
    parts = wait["siblings"] * (2 if _may_delegate(connection, response, job, wait["agent"], left) else 1)
    tokens = 0 if left.tokens is None else max(0, left.tokens - spent.tokens) // parts
    money = Decimal(0) if left.money is None else max(Decimal(0), left.money - spent.money) / parts
    if (left.tokens is not None and tokens < MIN_TOKENS) or (left.money is not None and not money):
        raise BudgetExhausted(f"The tree of {job.root_id or job.id} has {_plain(left)} left.")
    return Draw(tokens, money.quantize(MONEY_UNIT, ROUND_DOWN), calls=1)


def _may_delegate(
    connection: Connection, response: Response, job: Job, agent: Mapping[str, Any], left: Remaining
) -> bool:
    definition = definitions.read_definition(connection, response.account_id, agent)
    return bool(definition.agents) and (left.depth is None or job.depth + 1 < left.depth)


def _plain(left: Remaining) -> str:
    amounts = {"tokens": left.tokens, "money": left.money}
    return " and ".join(f"{amount} {name}" for name, amount in amounts.items() if amount is not None)


def _request(response: Response, agent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of an agent's turn: its definition has the rest."""
    asked = response.request
    return {
        "model": f"{definitions.MODEL_PREFIX}{agent['name']}",
        "engine_model": asked.get("engine_model") or asked["model"],
        "agent": dict(agent),
        "instructions": None,
        "background": True,
        "store": asked.get("store", True),
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "max_output_tokens": None,
        "user": asked["user"],
        "safety_identifier": asked.get("safety_identifier"),
        "sampling_defaults": asked.get("sampling_defaults"),
        "memory": {"remember": False},
        "approvals": "wait",
        "residency": asked.get("residency"),
        "service_tier": asked.get("service_tier"),
    }


def _input(
    connection: Connection, response: Response, item: Mapping[str, Any], agent: SubAgent
) -> Sequence[Mapping[str, Any]]:
    """Return what an agent reads: the conversation, if it is to, and the task."""
    task = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": _task(item["arguments"])}]}
    if agent.context != "conversation":
        return [task]
    messages = [each for each in thread_items(connection, response) if each["type"] == "message"]
    return [*({name: each[name] for name in ("type", "role", "content")} for each in messages), task]


def _task(arguments: str) -> str:
    """Return the task that the model has written. Arguments that were not checked may be anything."""
    with suppress(ValueError):
        parsed = orjson.loads(arguments)
        if isinstance(parsed, dict) and isinstance(parsed.get("task"), str):
            return str(parsed["task"])
    return arguments
