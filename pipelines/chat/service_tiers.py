"""Tiers of service: OpenAI's names, and the class of the price that each has.

`flex` is background work: it runs in the batch queue, leaves the engine to other turns, and has the price of the class
`batch`. `priority` passes the turns of others, and has the price of its class. If its generation begins too late, it
has the standard price, and the response shows the tier `default`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from models.jobs.usage import ServiceClass

#: A tier as a response shows it.
ServedTier = Literal["default", "flex", "priority"]

#: What a request may say → what it gets. Any other tier is the default one.
TIERS: Mapping[str, ServedTier] = {"flex": "flex", "priority": "priority", "fast": "priority", "ultrafast": "priority"}

CLASSES: Mapping[ServedTier, ServiceClass] = {"default": "standard", "flex": "batch", "priority": "priority"}


#: Seconds of the units of a completion window.
UNITS: Mapping[str, int] = {"m": 60, "h": 3600}


def window_seconds(request: Mapping[str, Any]) -> int | None:
    """Return the seconds within which a background turn is to be complete; None: as soon as possible."""
    window: str | None = request.get("completion_window")
    return int(window[:-1]) * UNITS[window[-1]] if window else None


def served_tier(request: Mapping[str, Any]) -> ServedTier:
    """Return the tier that a turn's request gets. One with a completion window is background work."""
    if request.get("completion_window"):
        return "flex"
    return TIERS.get(request.get("service_tier") or "", "default")


def service_class(request: Mapping[str, Any]) -> ServiceClass:
    """Return the class of the price of a turn's request."""
    return CLASSES[served_tier(request)]


def tier_in_time(request: Mapping[str, Any], due_at: datetime, seconds: float) -> ServedTier:
    """Return the tier of a turn whose generation begins now, and which could begin at `due_at`."""
    tier = served_tier(request)
    late = (datetime.now(UTC) - due_at).total_seconds() > seconds
    return "default" if tier == "priority" and late else tier
