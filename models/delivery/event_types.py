"""The types of events: what their data has, for validation, for samples and for the documentation.

`response.*` and `batch.*` have OpenAI's names and data. The data of all types is thin: the id of the object, which its
reader fetches, and few other fields.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

EventType = Literal[
    "response.completed",
    "response.failed",
    "response.incomplete",
    "response.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "job.dead",
    "meditation.completed",
    "approval.requested",
    "file.created",
    "report.completed",
    "payment.succeeded",
    "payment.failed",
    "invoice.finalized",
    "invoice.paid",
    "subscription.updated",
    "quota.threshold",
    "member.invited",
    "member.joined",
    "member.role_changed",
    "member.removed",
]


@dataclass(frozen=True, slots=True)
class EventDescription:
    """When an event is recorded, and the data of a sample."""

    description: str
    sample: Mapping[str, Any]


def _response(what: str) -> EventDescription:
    return EventDescription(f"A response with `background` {what}. `id` is the response.", {"id": "resp_sample"})


def _batch(what: str) -> EventDescription:
    return EventDescription(f"A batch {what}. `id` is the batch.", {"id": "batch_sample"})


_PAYMENT = {"id": "pay_sample", "invoice_id": "inv_sample", "amount": "20.00", "currency": "EUR"}
_INVOICE = {"id": "inv_sample", "number": "2026-0001", "total": "20.00", "currency": "EUR"}
_MEMBER = {"id": "user_sample", "role": "member"}

EVENT_TYPES: Final[Mapping[EventType, EventDescription]] = {
    "response.completed": _response("has completed"),
    "response.failed": _response("has failed"),
    "response.incomplete": _response("has ended at a limit"),
    "response.cancelled": _response("was cancelled"),
    "batch.completed": _batch("has completed: its output file exists"),
    "batch.failed": _batch("has failed its validation"),
    "batch.expired": _batch("has passed its completion window"),
    "batch.cancelled": _batch("was cancelled"),
    "job.dead": EventDescription(
        "A job has failed as often as it may, and waits for an operator. `id` is the job.",
        {"id": "job_sample", "kind": "turn.run"},
    ),
    "meditation.completed": EventDescription(
        "A meditation has completed. `outcome` is `applied`, `nothing_to_do` or `would_harm`.",
        {"id": "med_sample", "outcome": "applied"},
    ),
    "approval.requested": EventDescription(
        "A call of a tool waits for a person's decision. `id` is the approval.",
        {"id": "mcpr_sample", "response_id": "resp_sample"},
    ),
    "file.created": EventDescription("A file can be read.", {"id": "file_sample", "purpose": "user_data"}),
    "report.completed": EventDescription(
        "A report has been written to a file. `id` is the report.",
        {"id": "report_sample", "kind": "usage", "file_id": "file_sample"},
    ),
    "payment.succeeded": EventDescription("A payment has succeeded. `invoice_id` may be null.", _PAYMENT),
    "payment.failed": EventDescription("A payment has failed, such as a declined card.", _PAYMENT),
    "invoice.finalized": EventDescription("An invoice has its number and its total.", _INVOICE),
    "invoice.paid": EventDescription("Nothing of an invoice is due any more.", _INVOICE),
    "subscription.updated": EventDescription(
        "A subscription has begun, changed its plan, state or period, or ended.",
        {"id": "sub_sample", "plan_id": "plan_sample", "state": "active"},
    ),
    "quota.threshold": EventDescription(
        "80 or 100 percent of a limit are used, each once in its period. `limit` is `tokens_per_month`, "
        "`included_usage` or `spending` of the plan, or `spending_limit`, which the account has set. `scope` of that "
        "is `key:ID`, `agent:NAME`, or empty for the whole account.",
        {"limit": "tokens_per_month", "percent": 80, "scope": "", "period_start": "2026-11-01"},
    ),
    "member.invited": EventDescription(
        "A person was invited to the account. `id` is the invitation.", {"id": "inv_sample", "role": "member"}
    ),
    "member.joined": EventDescription("A user has become a member of the account. `id` is the user.", _MEMBER),
    "member.role_changed": EventDescription("A member has another role. `id` is the user.", _MEMBER),
    "member.removed": EventDescription("A member was removed, or has left. `id` is the user.", {"id": "user_sample"}),
}


def unknown_patterns(patterns: Iterable[str]) -> list[str]:
    """Return those of the patterns that no type matches. A pattern is a type, a prefix such as `response.*`, or `*`."""
    return [pattern for pattern in patterns if not any(matches(pattern, type) for type in EVENT_TYPES)]


def matches(pattern: str, type: str) -> bool:
    """Return whether an event type matches a pattern."""
    if pattern == "*":
        return True
    return type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == type
