"""Parts of a request that only another server could serve: they are left out, so that clients need not be changed."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from web.http.ignored_fields import is_tolerant, report
from web.http.validation import RequestBody, should_be_one_of


class LeftOut(RequestBody):
    """A value of a type that is not supported. It is named in the response, and an error in a strict request.

    supported  the types that are supported in its place
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
        report(info)
        return value
