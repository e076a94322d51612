"""The header `Prefer` (RFC 7240) of a request, and `Preference-Applied` of its response."""

import re
from collections.abc import Mapping

#: The preference to wait for so many seconds.
WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:;.*)?", re.IGNORECASE)


def preferred_wait(headers: Mapping[str, str], most: int) -> int | None:
    """Return the seconds that the client is willing to wait, at most `most`; None without such a preference.

    Of several the first counts, and one that cannot be read is ignored (RFC 7240, 2).
    """
    for preference in headers.get("prefer", "").split(","):
        if match := WAIT.fullmatch(preference):
            return min(int(match[1]), most)
    return None


def applied_wait(seconds: int | None) -> dict[str, str]:
    """Return the response header that names the wait that was applied."""
    return {} if seconds is None else {"preference-applied": f"wait={seconds}"}
