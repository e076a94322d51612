"""The limits of accounts, and the models that they may use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from models.platform.errors import NotAllowed

#: The limits of an account, in statements that join `accounts` and `plans`: those of its subscription or else of its
#: plan, replaced by operators' overrides.
EFFECTIVE_LIMITS = "coalesce(accounts.plan_limits, plans.limits) || accounts.limits"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an account: those of its plan, replaced by operators' overrides. None is unlimited.

    requests_per_minute, tokens_per_minute  of the account, and of each of its API keys
    streams                                 open event streams in one web process
    unfinished_jobs                         jobs that are queued, running or waiting
    unfinished_bytes                        bytes of their arguments, inputs and first events
    tokens_per_month                        tokens billed and reserved in a calendar month (UTC)
    stored_bytes                            bytes of files, such as exports and files that are being imported
    memory_spaces                           end users with memories
    models                                  names of the models that it may use
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None
    unfinished_jobs: int | None = None
    tokens_per_month: int | None = None
    stored_bytes: int | None = None
    unfinished_bytes: int | None = None
    memory_spaces: int | None = None
    models: Sequence[str] | None = None

    def allow(self, model: str) -> bool:
        """Return whether the account may use a model."""
        return self.models is None or model in self.models

    def within(self, models: Sequence[str] | None) -> "Limits":
        """Return the limits of an API key that may use only some of the models; None: all of the account's."""
        if models is None:
            return self
        return replace(self, models=[name for name in models if self.allow(name)])

    def check_model(self, model: str) -> None:
        """Raise NotAllowed unless the account may use a model."""
        if not self.allow(model):
            names = ", ".join(f"'{name}'" for name in self.models or ()) or "none"
            raise NotAllowed(
                f"The plan of the account, or the API key, does not include the model '{model}'. Included: {names}.",
                param="model",
                code="model_not_allowed",
            )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request may use: its account's limits, and the costs known so far.

    estimated_tokens  tokens drawn from the limit per minute; corrected when the turn ends
    context           tokens of prompt and answer together
    billed            whether the account's usage is billed, so that it may have spending limits
    method_required   whether an account without a payment method pays in advance
    """

    limits: Limits = field(default_factory=Limits)
    estimated_tokens: int = 0
    context: int = 0
    billed: bool = False
    method_required: bool = False


UNLIMITED = Allowance()


def parse_limits(stored: Mapping[str, Any]) -> Limits:
    """Parse EFFECTIVE_LIMITS. Unknown keys are ignored."""
    return Limits(**{limit.name: stored.get(limit.name) for limit in fields(Limits)})
