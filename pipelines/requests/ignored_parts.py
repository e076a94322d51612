"""Parts of a request that this server does not support and ignores, so that clients need not be changed."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from pipelines.requests.ignored_fields import is_tolerant, mark_without_effect
from pipelines.requests.validation import RequestBody, should_be_one_of


class IgnoredPart(RequestBody):
    """A value of an unsupported type. The response names it; in a strict request it is an error.

    supported  the supported types, which the error lists
    """

    model_config = ConfigDict(extra="ignore")

    supported: ClassVar[Sequence[str]] = ()

    type: str

    def without_effect(self) -> Iterable[str]:
        """Name the value by its type."""
        return [f"({self.type})"]

    @model_validator(mode="before")
    @classmethod
    def _reject_unless_tolerant(cls, value: Any, info: ValidationInfo) -> Any:
        if not is_tolerant(info):
            raise PydanticCustomError("unsupported_value", "{reason}", {"reason": should_be_one_of(cls.supported)})
        mark_without_effect(info)
        return value
