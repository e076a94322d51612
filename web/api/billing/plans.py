"""`/admin/plans` and `/billing/plans`: the plans of the installation, their versions, and those that customers see."""

import re
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.plans import parse_limits
from models.billing import numbering, plan_versions
from models.billing.currencies import MAX_AMOUNT, ZERO, check_currency, format_amount, rounded
from models.billing.overage import NO_OVERAGE
from models.billing.periods import Period
from models.billing.plan_versions import AT_PRICE, PlanTerms, PlanVersion
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound
from models.platform.texts import truncate
from pipelines.accounts import operator_actions
from pipelines.requests.validation import RequestBody
from web.api.accounts.account import AccountLimits, limits_object
from web.api.accounts.limits import LimitOverrides
from web.api.accounts.names import Name
from web.api.billing.amounts import Amount
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response, page_object

#: The pattern of a plan's id.
PLAN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

NotNegative = Annotated[Amount, Field(ge=0, le=MAX_AMOUNT)]


class OverageTier(RequestBody):
    """The factor of the price of usage up to an amount; null: of all that is more."""

    up_to: Annotated[Amount, Field(gt=0, le=MAX_AMOUNT)] | None
    factor: Annotated[Amount, Field(ge=0, le=1000)]


class Overage(RequestBody):
    """The price of usage that is not included. `graduated`: each tier prices its part; `volume`: one prices all.

    `none`: there is none, so the account can use what is included and its credits. It has no tiers.
    """

    mode: Literal["graduated", "volume", "none"]
    tiers: list[OverageTier] | None = Field(None, min_length=1, max_length=20)

    @model_validator(mode="after")
    def _check_tiers(self) -> Self:
        if (self.mode == NO_OVERAGE) != (self.tiers is None):
            raise ValueError("should have 'tiers', or the mode 'none'")
        if self.tiers is None:
            return self
        *bounded, last = [tier.up_to for tier in self.tiers]
        if last is not None or None in bounded:
            raise ValueError("should have tiers of which the last one, and only that, has 'up_to': null")
        if any(first >= second for first, second in pairwise(filter(None, bounded))):
            raise ValueError("should have tiers in the order of 'up_to'")
        return self


class PutPlan(RequestBody):
    """The body of `PUT /admin/plans/{id}`. An omitted limit is unlimited.

    Omitted fields of billing have their defaults: no fee, and no customer may subscribe. `public` is true by default
    for a plan whose `fee` is given, also if that is 0.
    """

    name: Name
    limits: LimitOverrides
    fee: NotNegative = ZERO
    currency: str | None = Field(None, min_length=3, max_length=3)
    period: Period = "month"
    trial_days: int = Field(0, ge=0, le=730)
    included_amount: NotNegative = ZERO
    overage: Overage | None = None
    spending_limit: NotNegative | None = None
    models: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(None, max_length=100)
    public: bool | None = None


class OverageTierObject(TypedDict):
    """A tier of the price of usage."""

    up_to: str | None
    factor: str


class OverageObject(TypedDict):
    """The price of usage that is not included, as factors of the list price."""

    mode: Literal["graduated", "volume", "none"]
    tiers: list[OverageTierObject]


class PlanObject(TypedDict):
    """A version of a plan. Amounts are decimal strings; `included_amount` is usage within the fee, per period."""

    id: str
    object: Literal["plan"]
    version: int
    name: str
    limits: AccountLimits
    fee: str
    currency: str
    period: Period
    trial_days: int
    included_amount: str
    overage: OverageObject
    spending_limit: str | None
    models: list[str] | None
    public: bool
    created_at: int


def list_plans(request: Request) -> Response:
    """`GET /admin/plans`: list the newest version of all plans."""
    with request.platform.database.connection() as connection:
        return json_response(page_object([plan_object(plan) for plan in plan_versions.list_newest(connection)]))


def list_versions(request: Request) -> Response:
    """`GET /admin/plans/{id}/versions`: list the versions of a plan, newest first."""
    plan_id = request.path_params["plan_id"]
    with request.platform.database.connection() as connection:
        versions = plan_versions.list_versions(connection, plan_id)
    if not versions:
        raise NotFound(f"Plan with id '{truncate(plan_id)}' not found.", param="plan_id", code="plan_not_found")
    return json_response(page_object([plan_object(version) for version in versions]))


def list_public(request: Request) -> Response:
    """`GET /billing/plans`: list the plans that the account may subscribe to."""
    with request.platform.database.connection() as connection:
        plans = [plan for plan in plan_versions.list_newest(connection) if plan.public]
    return json_response(page_object([plan_object(plan) for plan in plans]))


def put_plan(request: Request) -> Response:
    """`PUT /admin/plans/{id}`: create a plan, or a new version of it. Without a change there is none."""
    plan_id = check_plan_id(request.path_params["plan_id"])
    body = bodies.parse(request.body, PutPlan)
    with request.platform.database.connection() as connection:
        terms = plan_terms(connection, body)
    plan = operator_actions.put_plan(request.platform.database, request.caller, plan_id, request.origin, terms)
    return json_response(plan_object(plan))


def check_plan_id(plan_id: str) -> str:
    """Return a plan's id. Raises InvalidRequest for one that does not have the form."""
    if not PLAN_ID.fullmatch(plan_id):
        expected = "expected 1 to 64 of the characters a-z, 0-9, '_' and '-', not beginning with '_' or '-'"
        message = f"Invalid value for 'plan_id': '{truncate(plan_id)}'; {expected}."
        raise InvalidRequest(message, param="plan_id")
    return plan_id


def plan_terms(connection: Connection, body: PutPlan) -> PlanTerms:
    """Return what a body says, with the defaults. Raises InvalidRequest."""
    currency = check_currency(body.currency or numbering.read_seller(connection).default_currency)
    return PlanTerms(
        name=body.name,
        limits=body.limits.model_dump(),
        fee=_whole(body.fee, currency, "fee"),
        currency=currency,
        period=body.period,
        trial_days=body.trial_days,
        included_amount=_whole(body.included_amount, currency, "included_amount"),
        overage=_stored_overage(body.overage) if body.overage else AT_PRICE,
        spending_limit=body.spending_limit,
        models=sorted(set(body.models)) if body.models is not None else None,
        public="fee" in body.model_fields_set if body.public is None else body.public,
    )


def _whole(amount: Decimal, currency: str, param: str) -> Decimal:
    """Return an amount with the digits of its currency. Raises InvalidRequest for one that has more."""
    if amount != rounded(amount, currency):
        raise InvalidRequest(f"'{param}' has more decimal digits than {currency}.", param=param)
    return rounded(amount, currency)


def _stored_overage(overage: Overage) -> OverageObject:
    """Return what is stored. Without overage, what credits pay costs its list price."""
    if overage.tiers is None:
        return {"mode": NO_OVERAGE, "tiers": [{"up_to": None, "factor": "1"}]}
    tiers: list[OverageTierObject] = [
        {"up_to": None if tier.up_to is None else format_amount(tier.up_to), "factor": format_amount(tier.factor)}
        for tier in overage.tiers
    ]
    return {"mode": overage.mode, "tiers": tiers}


def plan_object(plan: PlanVersion) -> PlanObject:
    """Convert a version of a plan to its API object."""
    mode = plan.overage["mode"]
    overage: OverageObject = {"mode": mode, "tiers": [] if mode == NO_OVERAGE else plan.overage["tiers"]}
    return {
        "id": plan.plan_id,
        "object": "plan",
        "version": plan.version,
        "name": plan.name,
        "limits": limits_object(parse_limits(plan.limits)),
        "fee": format_amount(plan.fee, plan.currency),
        "currency": plan.currency,
        "period": plan.period,
        "trial_days": plan.trial_days,
        "included_amount": format_amount(plan.included_amount, plan.currency),
        "overage": overage,
        "spending_limit": None if plan.spending_limit is None else format_amount(plan.spending_limit, plan.currency),
        "models": None if plan.models is None else list(plan.models),
        "public": plan.public,
        "created_at": int(plan.created_at.timestamp()),
    }
