"""The outcome of publishing a batch of messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dramatiq


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Which messages of a batch are in their queues.

    confirmed  those that the broker has confirmed, in the order of the batch; any others may be in the queue or not
    error      why the others were not confirmed; None if all were
    """

    confirmed: Sequence[dramatiq.Message[Any]]
    error: Exception | None = None
