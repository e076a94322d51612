"""Fields of requests that are accepted without effect. Unknown values are ignored, too."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo

from pipelines.requests.ignored_fields import Hint, ignore_hint, is_tolerant

ServiceTier = Annotated[
    Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None, Hint
]  # fmt: skip
CacheRetention = Annotated[Literal["in_memory", "in-memory", "24h"] | None, Hint]
CacheOptions = Annotated[dict[str, Any] | None, Hint]
Verbosity = Annotated[Literal["low", "medium", "high"] | None, Hint]


def only_known(names: Collection[str]) -> BeforeValidator:
    """Drop the texts of a list that are not in `names`; a strict validation rejects them."""

    def drop(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, list) or not is_tolerant(info):
            return value
        known = [element for element in value if element in names or not isinstance(element, str)]
        if len(known) < len(value):
            ignore_hint(info)
        return known

    return BeforeValidator(drop)
