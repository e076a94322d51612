"""Names that people give to themselves, to their accounts and to what they make."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

#: A line of text that can stand in a list, a letter and a log: no control characters, no line breaks of any kind.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]

#: What mail programs and chats make a link of.
LINK_MARKERS = ("://", "www.")


def _reject_links(name: str) -> str:
    if any(beginning in name.lower() for beginning in LINK_MARKERS):
        raise ValueError("should not contain a link")
    return name


#: A name that stands in letters to strangers, who should find no link there but ours.
PublicName = Annotated[Name, AfterValidator(_reject_links)]
