"""Read the MCP servers that the operator offers to all accounts from the environment.

`SANGHA_MCP_SERVERS=search,files` names them. Each has variables of its own, such as `SANGHA_MCP_SERVER_SEARCH_URL`.
Only here a server may be a program, which workers start: `SANGHA_MCP_SERVER_FILES_COMMAND`.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from models.platform.errors import ConfigurationError
from models.platform.urls import mask_credentials, url_error

NAMES = "SANGHA_MCP_SERVERS"

#: Suffixes of a server's variables. It has a URL or a command.
ENDINGS = ("URL", "COMMAND", "AUTHORIZATION", "ALLOW", "APPROVAL")

#: The pattern of a server's name, which is its label and part of the names of its variables.
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: Labels that no server may have: those of the platform's own tools and of agents.
RESERVED_LABELS = frozenset({"sangha", "agents"})

#: Which calls a person has to approve: all, none, or those of tools that do not say that they only read.
Approval = Literal["always", "never", "writes"]


@dataclass(frozen=True, slots=True, repr=False)
class OperatorServer:
    """An MCP server of the operator.

    authorization  what follows `Bearer` in the header
    allow          the names of the tools that it offers; empty: all
    """

    name: str
    url: str = ""
    command: str = ""
    authorization: str | None = None
    allow: tuple[str, ...] = ()
    approval: Approval = "always"

    def __repr__(self) -> str:
        """Return the server without its secrets; a command may contain one."""
        return f"OperatorServer({self.name!r}, {self.url!r})"


def load_operator_servers(environment: Mapping[str, str]) -> tuple[OperatorServer, ...]:
    """Read all servers. Raises ConfigurationError with one line that names the variable and shows no secret."""
    names = [name.strip().lower() for name in environment.get(NAMES, "").split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{NAMES} is {environment[NAMES]!r}: it names a server twice")
    servers = tuple(_load(name, environment) for name in names)
    _reject_unknown(names, environment)
    return servers


def operator_server_variables(servers: Iterable[OperatorServer]) -> dict[str, str]:
    """Return the environment variables of these servers, the inverse of `load_operator_servers`."""
    servers = list(servers)
    variables = {NAMES: ",".join(server.name for server in servers)}
    for server in servers:
        texts = (server.url, server.command, server.authorization or "", ",".join(server.allow), server.approval)
        variables |= {_variable(server.name, ending): text for ending, text in zip(ENDINGS, texts, strict=True)}
    return variables


def _load(name: str, environment: Mapping[str, str]) -> OperatorServer:
    if not NAME.fullmatch(name) or name in RESERVED_LABELS:
        reserved = " or ".join(sorted(RESERVED_LABELS))
        raise ConfigurationError(
            f"{NAMES} names {name!r}: a name begins with a letter, has letters, digits and _, and is not {reserved}"
        )
    values = {ending: environment.get(_variable(name, ending), "").strip() for ending in ENDINGS}
    if bool(values["URL"]) == bool(values["COMMAND"]):
        variables = f"{_variable(name, 'URL')} and {_variable(name, 'COMMAND')}"
        raise ConfigurationError(f"{NAMES} names {name!r}: set one of {variables}")
    allow = tuple(tool.strip() for tool in values["ALLOW"].split(",") if tool.strip())
    url, command = _checked_url(name, values["URL"]), _checked_command(name, values["COMMAND"])
    authorization = _checked_authorization(name, values["AUTHORIZATION"])
    return OperatorServer(name, url, command, authorization, allow, _checked_approval(name, values["APPROVAL"]))


def _checked_url(name: str, url: str) -> str:
    if not url:
        return ""
    fault = url_error(url, "http", "https")
    if fault is None and "@" in urlsplit(url).netloc:
        fault = f"should contain no credentials: set {_variable(name, 'AUTHORIZATION')}"
    if fault is not None:
        raise ConfigurationError(f"{_variable(name, 'URL')} is {mask_credentials(repr(url))}: it {fault}")
    return url


def _checked_command(name: str, command: str) -> str:
    try:
        shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"{_variable(name, 'COMMAND')} cannot be parsed: {error}") from None
    return command


def _checked_authorization(name: str, text: str) -> str | None:
    if not (text.isascii() and text.isprintable()) and text:
        raise ConfigurationError(f"{_variable(name, 'AUTHORIZATION')} is ***: it should be printable ASCII")
    return text or None


def _checked_approval(name: str, text: str) -> Approval:
    if text and text not in get_args(Approval):
        expected = ", ".join(get_args(Approval))
        raise ConfigurationError(f"{_variable(name, 'APPROVAL')} is {text!r}: it should be one of {expected}")
    return cast(Approval, text or "always")


def _reject_unknown(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Reject variables that no server reads: their names are misspelled."""
    known = {_variable(name, ending) for name in names for ending in ENDINGS}
    for variable, value in environment.items():
        if variable.startswith("SANGHA_MCP_SERVER_") and value and variable not in known:
            raise ConfigurationError(f"{variable} is set, but {NAMES} names no server that has it")


def _variable(name: str, ending: str) -> str:
    return f"SANGHA_MCP_SERVER_{name.upper()}_{ending}"
