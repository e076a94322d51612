"""Check URLs of settings, and mask their credentials in error messages."""

import re
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from models.platform.redis_url import parse_redis_url


def url_error(url: str, *schemes: str) -> str | None:
    """Return what the URL should be, or None where it is well-formed and has one of the schemes."""
    expected = " or ".join(f"{scheme}://…" for scheme in schemes)
    if url.partition("://")[0] not in schemes:
        return f"should be {expected}"
    if (fault := _syntax_error(url)) is not None:
        return f"should be a well-formed {expected}{fault}"
    return None


def mask_credentials(text: str) -> str:
    """Mask the credentials of a URL: up to its last @, since a malformed one may have several, and in its query."""
    return re.sub(r"password=[^&'\"]*", "password=***", re.sub(r"//.*@", "//***@", text))


def _syntax_error(url: str) -> str | None:
    """Return the parser's message in brackets, or None.

    Parsers quote the part that they reject, which may be half of a password: a URL with credentials gets no message.
    """
    try:
        if parse_redis_url(url):
            return None
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # urlsplit checks these only on access
        if parts.scheme.startswith("postgres"):
            conninfo_to_dict(url)
    except (ValueError, psycopg.ProgrammingError) as error:
        return "" if "@" in url else f" ({str(error).strip().partition(chr(10))[0]})"
    return None
