"""Types for the names of users, accounts, API keys and plans."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

#: One line of text that is safe in lists, e-mails and logs: no control characters, no line breaks of any kind.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]

#: Substrings that mail and chat programs turn into links.
LINK_MARKERS = ("://", "www.")


def _reject_links(name: str) -> str:
    if any(marker in name.lower() for marker in LINK_MARKERS):
        raise ValueError("should not contain a link ('://' or 'www.')")
    return name


#: A name that appears in e-mails to others, in which only the platform's own links may appear.
PublicName = Annotated[Name, AfterValidator(_reject_links)]
