"""Turns that a schedule starts: kept as a plan that can be stored, checked when it is made and again when it is due."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from models.access.auth_context import AuthContext
from models.accounts.plans import Allowance
from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.chat.start import NewTurn, AcceptedTurn, start_turn_in
from pipelines.chat.thread import find_thread, resolve_references
from pipelines.inference.registry import model_name


def turn_plan(turn: NewTurn, *, any_model: bool) -> dict[str, Any]:
    """The turn as it is stored. `any_model`: with whatever model is there when its time has come."""
    request = {**turn.request, "model": None if any_model else turn.request["model"]}
    return asdict(replace(turn, request=request))


def check(connection: Connection, account_id: str, turn: NewTurn) -> None:
    """Raise NotFound and InvalidRequest for a place or an item that the account doesn't have."""
    find_thread(connection, account_id, turn.conversation_id, turn.previous_id)
    resolve_references(connection, account_id, turn.input, "input")


def start(connection: Connection, plan: Mapping[str, Any], standing: AuthContext, settings: Settings) -> AcceptedTurn:
    """Accept the turn for whom the schedule acts, in their account's limits. Raises what `chat.start` does."""
    local = model_name(settings)
    turn = NewTurn(**{**plan, "request": {**plan["request"], "model": plan["request"]["model"] or local}})
    if turn.request["model"] != local:
        message = f"The model '{turn.request['model']}' does not exist any more; there is '{local}'."
        raise InvalidRequest(message, param="model", code="model_not_found")
    return start_turn_in(connection, standing.caller, turn, Allowance(standing.limits, context=settings.context))
