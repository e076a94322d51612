"""The queues of models: each local model and each endpoint has one, with a twin for background work."""

import hashlib
import re

from models.jobs.catalogue import BATCH_SUFFIX

#: The queue of the default model. Earlier versions know no other.
DEFAULT_QUEUE = "inference"

#: What the queues of endpoints begin with.
ENDPOINT_PREFIX = "upstream."


def model_queue(name: str, default_model: str) -> str:
    """Return the queue of a local model's interactive turns."""
    return DEFAULT_QUEUE if name == default_model else f"{DEFAULT_QUEUE}.{_safe(name)}"


def endpoint_queue(endpoint: str) -> str:
    """Return the queue of the interactive turns that an endpoint answers."""
    return f"{ENDPOINT_PREFIX}{endpoint}"


def is_endpoint_queue(queue: str) -> bool:
    """Return whether an endpoint answers the turns of a queue."""
    return queue.startswith(ENDPOINT_PREFIX)


def endpoint_of(queue: str) -> str | None:
    """Return the endpoint that answers the turns of a queue, also of its twin for background work, or None."""
    return queue.removeprefix(ENDPOINT_PREFIX).removesuffix(BATCH_SUFFIX) if is_endpoint_queue(queue) else None


def _safe(name: str) -> str:
    """Return the name, if a queue may have it, or else one with replaced characters and a hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return name if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
