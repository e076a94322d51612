"""Subscriptions: the plan of an account, its periods, and whether they are paid.

    incomplete ──paid──► active ◄──paid── past_due ──retries failed──► unpaid
        │                 ▲  └──payment failed──►┘  ▲                    │
        │     trialing ───┘                         └── paid: active ────┘
        └──────── all of them ──────► ended

The limits of its version are the account's while it is trialing, active or past due. An account has one subscription
that has not ended. A transaction that changes one locks the account's billing details first. Each change is an event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from models.billing import periods, plan_versions
from models.billing.plan_versions import STORED_LIMITS, PlanVersion
from models.delivery import events
from models.platform.database import Connection, fetch_one
from models.platform.errors import NotFound
from models.platform.records import columns

SubscriptionState = Literal["incomplete", "trialing", "active", "past_due", "unpaid", "ended"]

EndReason = Literal["cancelled", "unpaid", "never_paid", "replaced", "account_erased"]

#: The states whose account has the limits of the plan.
ENTITLED: tuple[SubscriptionState, ...] = ("trialing", "active", "past_due")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A row of `subscriptions`.

    started_at       the anchor of the periods
    period_number    periods since then
    next_plan_id     the plan from the next period on; None: the same
    version_since    since when its version applies within this period
    included_before  usage that earlier versions include in this period
    """

    id: str
    account_id: str
    plan_id: str
    plan_version: int
    state: SubscriptionState
    started_at: datetime
    period_number: int
    period_start: datetime
    period_end: datetime
    trial_end: datetime | None
    cancel_at_period_end: bool
    next_plan_id: str | None
    next_plan_version: int | None
    version_since: datetime
    included_before: Decimal
    created_at: datetime
    ended_at: datetime | None
    end_reason: EndReason | None


COLUMNS = columns(Subscription)

INSERT = f"""
INSERT INTO subscriptions (id, account_id, plan_id, plan_version, state, started_at, period_start, period_end,
                           trial_end, version_since)
VALUES (%(id)s, %(account_id)s, %(plan_id)s, %(plan_version)s, %(state)s, %(period_start)s, %(period_start)s,
        %(period_end)s, %(trial_end)s, %(period_start)s)
RETURNING {COLUMNS}
"""


def insert(
    connection: Connection,
    subscription_id: str,
    account_id: str,
    version: PlanVersion,
    state: SubscriptionState,
    period: tuple[datetime, datetime],
) -> Subscription:
    """Insert a subscription. The first period of one that is trialing is its trial."""
    parameters = {
        "id": subscription_id,
        "account_id": account_id,
        "plan_id": version.plan_id,
        "plan_version": version.version,
        "state": state,
        "period_start": period[0],
        "period_end": period[1],
        "trial_end": period[1] if state == "trialing" else None,
    }
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    return _recorded(connection, Subscription(**row))


READ = f"SELECT {COLUMNS} FROM subscriptions WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, subscription_id: str, account_id: str) -> Subscription | None:
    """Return a subscription of the account."""
    return _optional(fetch_one(connection, READ, {"id": subscription_id, "account_id": account_id}))


def lock(connection: Connection, subscription_id: str, account_id: str) -> Subscription | None:
    """Return a subscription of the account, and lock it. The caller has locked the account's details."""
    statement = f"{READ} FOR UPDATE"
    return _optional(fetch_one(connection, statement, {"id": subscription_id, "account_id": account_id}))


CURRENT = f"SELECT {COLUMNS} FROM subscriptions WHERE account_id = %(account_id)s AND state <> 'ended'"


def current(connection: Connection, account_id: str) -> Subscription | None:
    """Return the account's subscription that has not ended."""
    return _optional(fetch_one(connection, CURRENT, {"account_id": account_id}))


def lock_current(connection: Connection, account_id: str) -> Subscription:
    """Lock the account's subscription that has not ended. The caller has locked its details. Raises NotFound."""
    row = fetch_one(connection, f"{CURRENT} FOR UPDATE", {"account_id": account_id})
    if row is None:
        raise NotFound("The account has no subscription.", code="no_subscription")
    return Subscription(**row)


LATEST = f"SELECT {COLUMNS} FROM subscriptions WHERE account_id = %(account_id)s ORDER BY created_at DESC LIMIT 1"


def latest(connection: Connection, account_id: str) -> Subscription | None:
    """Return the account's newest subscription, which may have ended."""
    return _optional(fetch_one(connection, LATEST, {"account_id": account_id}))


MOVE = f"""
UPDATE subscriptions
SET plan_id = %(plan_id)s, plan_version = %(plan_version)s, started_at = %(anchor)s, period_number = %(number)s,
    period_start = %(start)s, period_end = %(end)s, version_since = %(start)s, included_before = 0,
    next_plan_id = NULL, next_plan_version = NULL,
    state = CASE WHEN state = 'trialing' THEN 'active' ELSE state END
WHERE id = %(id)s AND account_id = %(account_id)s AND period_end = %(from_end)s AND state <> 'ended'
RETURNING {COLUMNS}
"""


def move(
    connection: Connection, subscription: Subscription, version: PlanVersion, anchor: datetime, number: int
) -> Subscription:
    """Move a locked subscription to period `number` of `anchor`, with a version. The trial is over then."""
    start, end = periods.bounds(anchor, version.period, number)
    parameters = {
        **_names(subscription),
        "plan_id": version.plan_id,
        "plan_version": version.version,
        "anchor": anchor,
        "number": number,
        "start": start,
        "end": end,
        "from_end": subscription.period_end,
    }
    return _changed(connection, MOVE, subscription, parameters)


SET_VERSION = f"""
UPDATE subscriptions
SET plan_id = %(plan_id)s, plan_version = %(plan_version)s, version_since = %(at)s, included_before = %(included)s,
    next_plan_id = NULL, next_plan_version = NULL
WHERE id = %(id)s AND account_id = %(account_id)s AND state <> 'ended' RETURNING {COLUMNS}
"""


def set_version(
    connection: Connection, subscription: Subscription, version: PlanVersion, at: datetime, included: Decimal
) -> Subscription:
    """Change the version within the period. `included` is the usage that earlier versions include in it."""
    parameters = {
        **_names(subscription),
        "plan_id": version.plan_id,
        "plan_version": version.version,
        "at": at,
        "included": included,
    }
    return _changed(connection, SET_VERSION, subscription, parameters)


SET_NEXT = f"""
UPDATE subscriptions SET next_plan_id = %(plan_id)s, next_plan_version = %(plan_version)s
WHERE id = %(id)s AND account_id = %(account_id)s AND state <> 'ended' RETURNING {COLUMNS}
"""


def set_next(connection: Connection, subscription: Subscription, version: PlanVersion | None) -> Subscription:
    """Set the version from the next period on; None: it stays."""
    parameters = {
        **_names(subscription),
        "plan_id": version.plan_id if version else None,
        "plan_version": version.version if version else None,
    }
    return _changed(connection, SET_NEXT, subscription, parameters)


SET_CANCEL = f"""
UPDATE subscriptions SET cancel_at_period_end = %(cancel)s
WHERE id = %(id)s AND account_id = %(account_id)s AND state <> 'ended' RETURNING {COLUMNS}
"""


def set_cancel(connection: Connection, subscription: Subscription, *, cancel: bool) -> Subscription:
    """Set whether the subscription ends with its period."""
    return _changed(connection, SET_CANCEL, subscription, {**_names(subscription), "cancel": cancel})


SET_STATE = f"""
UPDATE subscriptions SET state = %(state)s
WHERE id = %(id)s AND account_id = %(account_id)s AND state = ANY(%(from_states)s) RETURNING {COLUMNS}
"""


def set_state(
    connection: Connection,
    subscription: Subscription,
    state: SubscriptionState,
    from_states: Sequence[SubscriptionState],
) -> Subscription | None:
    """Change the state. Returns None if it has none of `from_states`. The caller applies the limits."""
    parameters = {**_names(subscription), "state": state, "from_states": list(from_states)}
    changed = _optional(fetch_one(connection, SET_STATE, parameters))
    return _recorded(connection, changed) if changed else None


END = f"""
UPDATE subscriptions
SET state = 'ended', ended_at = now(), end_reason = %(reason)s, next_plan_id = NULL, next_plan_version = NULL
WHERE id = %(id)s AND account_id = %(account_id)s AND state <> 'ended' RETURNING {COLUMNS}
"""


def end(connection: Connection, subscription: Subscription, reason: EndReason) -> Subscription:
    """End a locked subscription. The account has the limits of its own plan again."""
    ended = _changed(connection, END, subscription, {**_names(subscription), "reason": reason})
    apply_limits(connection, ended)
    return ended


APPLY_LIMITS = f"""
UPDATE accounts SET plan_limits = (
    SELECT {STORED_LIMITS} FROM plan_versions WHERE plan_id = %(plan_id)s AND version = %(version)s AND %(entitled)s)
WHERE id = %(account_id)s
"""


def apply_limits(connection: Connection, subscription: Subscription) -> None:
    """Give the account the limits of its subscription's version, or those of its own plan, from its next request on."""
    parameters = {
        "account_id": subscription.account_id,
        "plan_id": subscription.plan_id,
        "version": subscription.plan_version,
        "entitled": subscription.state in ENTITLED,
    }
    connection.execute(APPLY_LIMITS, parameters)


def version_of(connection: Connection, subscription: Subscription) -> PlanVersion:
    """Return the version of the plan that a subscription has."""
    return plan_versions.read(connection, subscription.plan_id, subscription.plan_version)


def next_version(connection: Connection, subscription: Subscription) -> PlanVersion:
    """Return the version that a subscription has from its next period on."""
    if subscription.next_plan_id is None or subscription.next_plan_version is None:
        return version_of(connection, subscription)
    return plan_versions.read(connection, subscription.next_plan_id, subscription.next_plan_version)


HAD_ONE = "SELECT EXISTS (SELECT FROM subscriptions WHERE account_id = %(account_id)s AND trial_end IS NOT NULL) AS had"


def had_trial(connection: Connection, account_id: str) -> bool:
    """Return whether the account has had a trial. It has one only."""
    row = fetch_one(connection, HAD_ONE, {"account_id": account_id})
    return bool(row and row["had"])


HAS_USAGE = """
SELECT EXISTS (SELECT FROM usage_records
               WHERE account_id = %(account_id)s AND billed_amount IS NOT NULL AND billed_on IS NULL
                 AND created_at < %(before)s) AS found
"""


def has_unbilled_usage(connection: Connection, account_id: str, before: datetime) -> bool:
    """Return whether the account has usage from before a time that is on no invoice."""
    row = fetch_one(connection, HAS_USAGE, {"account_id": account_id, "before": before})
    return bool(row and row["found"])


def _names(subscription: Subscription) -> dict[str, Any]:
    return {"id": subscription.id, "account_id": subscription.account_id}


def _changed(connection: Connection, statement: str, before: Subscription, parameters: dict[str, Any]) -> Subscription:
    row = fetch_one(connection, statement, parameters)
    assert row is not None  # the caller has locked it, and seen its state
    changed = Subscription(**row)
    return changed if changed == before else _recorded(connection, changed)


def _recorded(connection: Connection, changed: Subscription) -> Subscription:
    """Record the event of a change, and return the changed subscription."""
    data = {"id": changed.id, "plan_id": changed.plan_id, "state": changed.state}
    events.record(connection, changed.account_id, "subscription.updated", data)
    return changed


def _optional(row: dict[str, Any] | None) -> Subscription | None:
    return Subscription(**row) if row else None
