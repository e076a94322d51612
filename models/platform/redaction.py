"""Remove secrets and content from what is logged or reported: chiefly from the messages of errors, which quote values.

A second line of defence: no log line of ours names a secret or content by itself.
"""

import re
from typing import Final

#: What replaces a value.
MASK: Final = "***"

#: What follows these words is a value, up to the end that the pattern names. Groups 1 and 2 are kept.
_QUOTED = re.compile(
    r"""
      (://)[^\s/@"']*:[^\s/@"']*(@)                           # user:password@ of a URL
    | (\b(?:Bearer|Basic)\s)[\w.~+/=-]{8,}()                  # the header Authorization
    | (\b(?:sk-|sk_|rk_|whsec_|ghp_|xox[bp]-))[\w+/=-]{6,}()  # keys, of ours and of others
    | (\beyJ)[\w-]+\.[\w-]+\.[\w-]*()                         # JSON web tokens
    | (\?)(?=[\w.%-]+=)[^\s"'<>]+()                           # the query of a URL
    | ([A-Za-z0-9])[\w.+-]*(@[\w-]+\.[\w.-]*\w)               # e-mail addresses
    | (\binput_value=).*?(,\ input_type=|$|\n)                # pydantic
    | (\b(?:Key|key)\ \([^)]*\)=).*?((?:\ (?:already|is\ not|is\ still|conflicts)\b|$|\\n|\n))  # Postgres: DETAIL
    | (\bFailing\ row\ contains\ ).*?($|\\n|\n)
    | (\binvalid\ input\ (?:syntax|value)\ for\ [^:\n]*:\ ").*?("(?=$|\s|\\n))
    | (\$\d+\ =\ ').*?('(?=$|,|\s|\\n))                       # parameters in Postgres' CONTEXT
    """,
    re.VERBOSE,
)

#: One of these is in every text that the patterns match: most lines have none and cost one scan.
_SUSPECT = re.compile(
    r"[@?]|Bearer|Basic|sk[-_]|rk_|whsec_|ghp_|xox|eyJ|input_value|[Kk]ey \(|Failing|invalid input|\$\d"
)


def redact(text: str) -> str:
    """Return a text without credentials, e-mail addresses, queries of URLs, and values that error messages quote."""
    return _QUOTED.sub(_mask, text) if _SUSPECT.search(text) else text


def _mask(match: "re.Match[str]") -> str:
    kept = [group for group in match.groups() if group is not None]
    return MASK.join(kept)


#: Escapes control characters: a value of a caller cannot begin a line of its own or move the cursor of a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_CONTROLS |= {ord("\n"): "\\n", ord("\r"): "\\r"}


def one_line(text: str) -> str:
    """Return a text as one line: line breaks become \\n, and other control characters \\xNN."""
    return text.translate(_CONTROLS)
