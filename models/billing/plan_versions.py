"""The versions of plans: limits, fee, period, trial, included usage and the price of what exceeds it.

A version never changes. `plans` has the limits of the newest one; a subscription keeps its version until it is moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from models.billing.periods import Period
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import NotFound
from models.platform.records import columns

#: Usage beyond what is included costs its price.
AT_PRICE: Mapping[str, Any] = {"mode": "graduated", "tiers": [{"up_to": None, "factor": "1"}]}


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """What a version of a plan says.

    limits           as in `plans.limits`, without the models
    included_amount  usage within the fee, per period
    overage          the price of usage that is not included (`models.billing.overage`)
    spending_limit   per month; None: none
    models           the models that may be used; None: all
    public           whether customers see the plan, and may subscribe to it
    """

    name: str
    limits: Mapping[str, Any]
    fee: Decimal
    currency: str
    period: Period
    trial_days: int
    included_amount: Decimal
    overage: Mapping[str, Any]
    spending_limit: Decimal | None
    models: Sequence[str] | None
    public: bool


@dataclass(frozen=True, slots=True)
class PlanVersion(PlanTerms):
    """A row of `plan_versions`."""

    plan_id: str
    version: int
    created_at: datetime


COLUMNS = columns(PlanVersion)

READ = f"SELECT {COLUMNS} FROM plan_versions WHERE plan_id = %(plan_id)s AND version = %(version)s"


def read(connection: Connection, plan_id: str, version: int) -> PlanVersion:
    """Return a version, which a subscription names."""
    row = fetch_one(connection, READ, {"plan_id": plan_id, "version": version})
    assert row is not None
    return PlanVersion(**row)


NEWEST = f"SELECT {COLUMNS} FROM plan_versions WHERE plan_id = %(plan_id)s ORDER BY version DESC LIMIT 1"


def newest(connection: Connection, plan_id: str) -> PlanVersion | None:
    """Return the newest version of a plan."""
    row = fetch_one(connection, NEWEST, {"plan_id": plan_id})
    return PlanVersion(**row) if row else None


def newest_public(connection: Connection, plan_id: str) -> PlanVersion:
    """Return the newest version of a plan that customers may subscribe to. Raises NotFound."""
    version = newest(connection, plan_id)
    if version is None or not version.public:
        raise NotFound(f"Plan with id '{plan_id}' not found.", param="plan", code="plan_not_found")
    return version


NEWEST_OF_EACH = f"""
SELECT DISTINCT ON (plan_id) {COLUMNS} FROM plan_versions ORDER BY plan_id, version DESC
"""


def list_newest(connection: Connection) -> list[PlanVersion]:
    """Return the newest version of every plan, ordered by the plans' ids."""
    return [PlanVersion(**row) for row in fetch_all(connection, NEWEST_OF_EACH)]


LIST = f"SELECT {COLUMNS} FROM plan_versions WHERE plan_id = %(plan_id)s ORDER BY version DESC"


def list_versions(connection: Connection, plan_id: str) -> list[PlanVersion]:
    """Return the versions of a plan, newest first."""
    return [PlanVersion(**row) for row in fetch_all(connection, LIST, {"plan_id": plan_id})]


#: Of `plan_versions`, as `plans.limits` and `accounts.plan_limits` have it.
STORED_LIMITS = "jsonb_strip_nulls(limits) || jsonb_strip_nulls(jsonb_build_object('models', models))"

# Concurrent changes of a plan wait for its row.
PUT_PLAN = """
INSERT INTO plans (id, name, limits) VALUES (%(id)s, %(name)s, %(limits)s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, limits = excluded.limits
"""

INSERT = f"""
INSERT INTO plan_versions (plan_id, version, {columns(PlanTerms)})
SELECT %(plan_id)s, coalesce(max(version), 0) + 1, %(name)s, %(limits)s, %(fee)s, %(currency)s, %(period)s,
       %(trial_days)s, %(included_amount)s, %(overage)s, %(spending_limit)s, %(models)s, %(public)s
FROM plan_versions WHERE plan_id = %(plan_id)s
RETURNING {COLUMNS}
"""


def put(connection: Connection, plan_id: str, terms: PlanTerms) -> PlanVersion:
    """Create a plan, or a new version of it. Without a difference from the newest version that one is returned."""
    limits = {name: value for name, value in terms.limits.items() if value is not None}
    stored = {**limits, **({"models": list(terms.models)} if terms.models is not None else {})}
    connection.execute(PUT_PLAN, {"id": plan_id, "name": terms.name, "limits": Jsonb(stored)})
    current = newest(connection, plan_id)
    if current is not None and _same(current, terms):
        return current
    parameters = {name: getattr(terms, name) for name in PlanTerms.__slots__}
    row = fetch_one(connection, INSERT, {**parameters, **_as_json(terms), "plan_id": plan_id})
    assert row is not None
    return PlanVersion(**row)


def _as_json(terms: PlanTerms) -> dict[str, Any]:
    models = Jsonb(list(terms.models)) if terms.models is not None else None
    return {"limits": Jsonb(dict(terms.limits)), "overage": Jsonb(dict(terms.overage)), "models": models}


def _same(version: PlanVersion, terms: PlanTerms) -> bool:
    return all(_comparable(getattr(version, name)) == _comparable(getattr(terms, name)) for name in PlanTerms.__slots__)


def _comparable(value: Any) -> Any:
    """Return a value in which an absent limit is one without a limit."""
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, Mapping) else value
