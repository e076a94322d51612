"""What the endpoint plays, and how it fails; both change while it runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

#: `status`: an error. `slow`: late. `hang`: silent, without an end. `drop`: the connection breaks. `garbage`: an event
#: that is no JSON. `refuse`: no connection is accepted, and all are closed.
FaultKind = Literal["none", "status", "slow", "hang", "drop", "garbage", "refuse"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The script of the answers to models that name none, and a fault.

    tokens       the length of an answer, unless the request limits it
    rate, slow   tokens a second, 0 without delay; `slow` where the last question has the word `slowly`
    nonce        each answer marks its words, as those of the scripted engine: `w0.3f9a`
    continues    a trailing assistant message is continued
    limit        answers at a time, beyond which a request gets 429; 0: any number
    fault        what happens to requests
    after        tokens that are sent before a hang, a drop or garbage; at 0 not even the head of the response
    status       of the fault `status`
    retry_after  seconds in the header Retry-After of 429 and 503; 0: no header
    delay        seconds until the response begins, with the fault `slow`
    times        requests that the fault affects before it ends by itself; 0: any number
    """

    tokens: int = 20
    rate: float = 0.0
    slow: float = 0.0
    nonce: bool = False
    continues: bool = False
    limit: int = 0
    fault: FaultKind = "none"
    after: int = 0
    status: int = 500
    retry_after: float = 0.0
    delay: float = 1.0
    times: int = 0

    def changed(self, changes: Mapping[str, Any]) -> "Behaviour":
        """Return the behaviour with changes. Raises ValueError for an unknown name or fault."""
        if unknown := changes.keys() - {field.name for field in fields(self)}:
            raise ValueError(f"an endpoint has no {', '.join(sorted(unknown))}")
        if changes.get("fault", "none") not in get_args(FaultKind):
            raise ValueError(f"there is no fault {changes['fault']!r}")
        return replace(self, **changes)

    def healed(self) -> "Behaviour":
        """Return the behaviour without its fault."""
        return replace(self, fault="none", after=0, times=0, retry_after=0.0)

    def json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)
