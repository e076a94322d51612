"""Types for the names of users, accounts, API keys and plans."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

#: Categories of characters that change how the text around them is shown, or that have no agreed meaning (Unicode 4.5).
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

#: Joiners, which emoji and some scripts need.
JOINERS = "\u200c\u200d"

#: What mail and chat programs turn into links.
LINK = re.compile(r"://|www\.|[^\s/.]\.[^\s/.]{2,}[/:?#]", re.IGNORECASE)


def _reject_hidden(name: str) -> str:
    if any(unicodedata.category(character) in HIDDEN and character not in JOINERS for character in name):
        raise ValueError("should not contain control characters, or characters that change the direction of text")
    return name


#: One line of text that is safe in lists, e-mails and logs: no control characters, no line breaks of any kind.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"),
    AfterValidator(_reject_hidden),
]


def _reject_links(name: str) -> str:
    if LINK.search(name):
        raise ValueError("should not contain a link, such as '://', 'www.' or a host name with a path")
    return name


#: A name that appears in e-mails, in which only the platform's own links may appear.
PublicName = Annotated[Name, AfterValidator(_reject_links)]
