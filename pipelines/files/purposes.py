"""What files are for: the purposes of OpenAI's API, and those of files that jobs create."""

from typing import Literal

#: Purposes that a caller may name.
Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]

#: Seconds after which a file expires: the least and the most that a caller may name.
MIN_SECONDS, MAX_SECONDS = 3600, 30 * 86400


def default_seconds(purpose: str) -> int | None:
    """Return the seconds after which a file expires if its caller names none: 30 days for a batch, as at OpenAI."""
    return MAX_SECONDS if purpose == "batch" else None
