"""A finding of the doctor, and how a check is run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from models.platform.errors import SanghaError
from models.platform.settings import Settings
from ops.messages import describe_error, first_line

#: The remedy for most findings when the installation is not running.
RUN_UP = "run `sangha up`"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `remedy` is what the operator can do about it."""

    verdict: Literal["ok", "warn", "FAIL"]
    name: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:<4} {self.name}: {self.detail}{f' — {self.remedy}' if self.remedy else ''}"


Check = Callable[[Settings], Finding]


def run_check(check: Check, settings: Settings) -> Finding:
    """Run a check. An exception becomes a failed finding: the remaining checks still run."""
    try:
        return check(settings)
    except SanghaError as error:
        return Finding("FAIL", check.__name__.replace("_", " "), first_line(error))
    except Exception as error:  # noqa: BLE001 - whatever is broken is what the doctor is asked to find
        return Finding("FAIL", check.__name__.replace("_", " "), describe_error(error).partition("\n")[0])
