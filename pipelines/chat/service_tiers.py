"""Tiers of service: OpenAI's names, and the class of the price that each has.

`flex` is background work: it runs in the batch queue, leaves the engine to other turns, and has the price of the class
`batch`. `priority` has the price of its class, and runs as others do.
"""

from collections.abc import Mapping
from typing import Any, Literal

from models.jobs.usage import ServiceClass

#: A tier as a response shows it.
ServedTier = Literal["default", "flex", "priority"]

#: What a request may say → what it gets. Any other tier is the default one.
TIERS: Mapping[str, ServedTier] = {"flex": "flex", "priority": "priority", "fast": "priority", "ultrafast": "priority"}

CLASSES: Mapping[ServedTier, ServiceClass] = {"default": "standard", "flex": "batch", "priority": "priority"}


def served_tier(request: Mapping[str, Any]) -> ServedTier:
    """Return the tier that a turn's request gets."""
    return TIERS.get(request.get("service_tier") or "", "default")


def service_class(request: Mapping[str, Any]) -> ServiceClass:
    """Return the class of the price of a turn's request."""
    return CLASSES[served_tier(request)]
