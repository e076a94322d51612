"""Turns as the work of a schedule: stored as a plan, which is checked at creation and again at each firing."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from models.access.auth_context import AuthContext
from models.accounts.ownership import Access
from models.accounts.plans import Allowance
from models.billing.prepaid import METHOD_GATEWAYS
from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from models.serving.served_models import read_models
from pipelines.agents.agent_turns import check_agent, engine_model, is_agent
from pipelines.chat.new_turn import AcceptedTurn, NewTurn
from pipelines.chat.start_turn import start_turn_in_transaction
from pipelines.chat.thread import find_thread, resolve_references
from pipelines.inference.registry import default_description

#: The default tier of scheduled turns: they run as background work unless the schedule asks for another tier.
BACKGROUND_TIERS: Mapping[str | None, str] = {None: "flex", "auto": "flex"}

#: The field of a planned request that has the models which the API key that created the schedule may use.
KEY_MODELS = "key_models"

#: Fields of a turn that a plan contains only if they are set.
NEW_FIELDS = ("space", "is_completion")


def turn_plan(turn: NewTurn, *, any_model: bool) -> dict[str, Any]:
    """Return the plan to store. With `any_model`, the turn uses the model that is served when it fires.

    Earlier versions also fire plans, and do not know the fields in NEW_FIELDS.
    """
    request = {**turn.request, "model": None if any_model else turn.request["model"]}
    plan = asdict(replace(turn, request=request))
    return {name: value for name, value in plan.items() if value or name not in NEW_FIELDS}


def check(connection: Connection, access: Access, turn: NewTurn) -> None:
    """Raise NotFound or InvalidRequest for a conversation, response, item or agent that the user does not have."""
    check_agent(connection, access.account_id, turn.request["model"])
    find_thread(connection, access, turn.conversation_id, turn.previous_id)
    resolve_references(connection, access, turn.input, "input")


def start(
    connection: Connection, plan: Mapping[str, Any], auth_context: AuthContext, settings: Settings
) -> AcceptedTurn:
    """Start the turn within the account's limits. Raises the errors of `pipelines.chat.start_turn`."""
    fallback = default_description(settings)
    models = read_models(connection, fallback, explicit=settings.default_model is not None)
    served = models.default.id
    planned = dict(plan["request"])
    limits = auth_context.limits.within(planned.pop(KEY_MODELS, None))
    tier = BACKGROUND_TIERS.get(planned.get("service_tier"), planned.get("service_tier"))
    any_model = {"any_model": True} if planned["model"] is None else {}
    request = {**planned, "model": planned["model"] or served, "service_tier": tier, **any_model}
    if is_agent(request["model"]):
        request["engine_model"] = served
    turn = NewTurn(**{**plan, "request": request})
    if (target := models.find(engine_model(turn.request))) is None:
        message = f"The model '{turn.request['model']}' is no longer served; '{served}' is."
        raise InvalidRequest(message, param="model", code="model_not_found")
    allowance = Allowance(
        limits,
        context=target.description.context,
        billed=auth_context.billed,
        method_required=settings.gateway in METHOD_GATEWAYS,
    )
    return start_turn_in_transaction(connection, auth_context.caller, turn, allowance, models)
