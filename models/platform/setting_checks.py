"""Checks of settings beyond their types."""

import ipaddress
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from urllib.parse import urlsplit

from pydantic import AfterValidator

from models.platform.egress_rules import parse_rule
from models.platform.urls import url_error

#: A host name or a domain, or `*`.
NAME = re.compile(r"\*|[^\s/:@,*]+")

#: An origin of the Fetch standard, or `*`. `null` is none: any page can have it.
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._\[\]:-]+")

#: A model's name, which is part of the names of queues.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")

#: Names of models that requests use for something else, and the ending of the queues of background work.
RESERVED_MODELS, RESERVED_ENDING = re.compile(r"default|agent/.*"), "_batch"


def url_of(*schemes: str) -> AfterValidator:
    """Return a check that the value is a URL with one of the schemes."""

    def check(value: str | None) -> str | None:
        if value is not None and (fault := url_error(value, *schemes)):
            raise ValueError(fault)
        return value

    return AfterValidator(check)


def with_host(url: str | None) -> str | None:
    """Reject a URL with a path or query: pages and links begin at the root."""
    if url is not None and (not (parts := urlsplit(url)).hostname or parts.path.strip("/") or parts.query):
        raise ValueError("should be a host without path or query")
    return url


def host_and_port(value: str | None) -> str | None:
    """Reject a value that is not HOST:PORT."""
    if value is not None:
        try:
            parts = urlsplit(f"//{value}")
            valid = bool(parts.hostname and parts.port) and parts.netloc == value and "@" not in value
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("should be HOST:PORT such as 10.0.0.5:9100")
    return value


def sender(value: str) -> str:
    """Check `NAME <ADDRESS>` or an address, as in a From header."""
    _, address = parseaddr(value)
    try:
        _ = Address(addr_spec=address)
    except (MessageError, ValueError, IndexError):
        address = ""
    if "@" not in address.strip("@") or not value.isprintable():
        raise ValueError("should be an address such as Sangha <sangha@example.com>")
    return value


def bucket_or_folder(value: str | None) -> str | None:
    """Reject a URL that is not that of a bucket."""
    if value is not None and "://" in value and not (value.startswith("s3://") and urlsplit(value).netloc):
        raise ValueError("should be s3://bucket/… or a folder")
    return value


def networks(value: str | None) -> str | None:
    """Reject a list with a part that is neither an address nor a network."""
    for part in (value or "127.0.0.1").split(","):
        try:
            ipaddress.ip_network(part.strip())
        except ValueError:
            raise ValueError("should be addresses or networks such as 10.0.0.0/8,192.0.2.1") from None
    return value


def domains(value: object) -> object:
    """Parse `example.com,example.org`."""
    if not isinstance(value, str):
        return value
    names = tuple(part.strip().lower().removeprefix("@").rstrip(".") for part in value.split(",") if part.strip())
    if any(not NAME.fullmatch(name) for name in names):
        raise ValueError("should be names such as example.com,example.org")
    return names


def origins(value: object) -> object:
    """Parse `https://app.example.com,http://localhost:3000` into origins as browsers write them."""
    if not isinstance(value, str):
        return value
    origins = tuple(part.strip().lower().removesuffix("/") for part in value.split(",") if part.strip())
    if any(not ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("should be * or origins such as https://app.example.com,http://localhost:3000")
    return tuple(re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin) for origin in origins)


def script_fields(value: object) -> object:
    """Parse `tokens=20,rate=0` into the fields of `Script`."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError("should be a list such as tokens=20,rate=0")
    return {name.strip(): text.strip() for name, _, text in pairs}


def egress_rules(value: object) -> object:
    """Parse `*,mcp.internal:8080,10.1.0.0/16`."""
    if not isinstance(value, str):
        return value
    rules = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    for rule in rules:
        parse_rule(rule)
    return rules


def served_name(value: str | None) -> str | None:
    """Reject a model's name that clients could not use, or queues not have."""
    if value is not None and (not MODEL_NAME.fullmatch(value) or RESERVED_MODELS.fullmatch(value)):
        raise ValueError("should have letters, digits and . _ : / @ + -, at most 128, and not be default or agent/NAME")
    if value is not None and value.endswith(RESERVED_ENDING):
        raise ValueError(f"should not end with {RESERVED_ENDING}: the queues of background work do")
    return value


def upper_case(value: object) -> object:
    """Return a name in upper case."""
    return value.upper() if isinstance(value, str) else value
