"""Read the OIDC providers that users may log in with from the environment.

`SANGHA_OIDC_PROVIDERS=google,corp` names them. Each has variables of its own, such as `SANGHA_OIDC_CORP_ISSUER`.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from models.platform.errors import ConfigurationError

NAMES = "SANGHA_OIDC_PROVIDERS"

#: Suffixes of a provider's variables. Without a client secret the provider is used as a public client, with PKCE.
REQUIRED, OPTIONAL = ("ISSUER", "CLIENT_ID"), ("CLIENT_SECRET", "SCOPES", "TITLE")

#: Scopes that are requested by default.
SCOPES = "openid email profile"

#: A name is part of a URL, of variables, and of the rows of `identities`, where it must not change.
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: A name that no provider may have: `/auth/oidc/exchange` is a route.
RESERVED_NAME = "exchange"


@dataclass(frozen=True, slots=True, repr=False)
class OidcProvider:
    """An OIDC provider. `title` is the label of the login button; `issuer` is compared exactly."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None = None
    scopes: str = SCOPES
    title: str = ""

    @property
    def label(self) -> str:
        """The name that users see."""
        return self.title or self.name.replace("_", " ").title()

    def __repr__(self) -> str:
        """Return the provider without its secret."""
        return f"Provider({self.name!r}, {self.issuer!r})"


def load_oidc_providers(environment: Mapping[str, str]) -> tuple[OidcProvider, ...]:
    """Read all providers. Raises ConfigurationError with one line that names the variable and shows no secret."""
    names = [name.strip().lower() for name in environment.get(NAMES, "").split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{NAMES} is {environment[NAMES]!r}: it names a provider twice")
    providers = tuple(_load(name, environment) for name in names)
    _reject_unknown_variables(names, environment)
    return providers


def _load(name: str, environment: Mapping[str, str]) -> OidcProvider:
    if not NAME.fullmatch(name) or name == RESERVED_NAME:
        raise ConfigurationError(
            f"{NAMES} names {name!r}: a name has letters, digits and _, and is not {RESERVED_NAME!r}"
        )
    values = {ending: environment.get(_variable(name, ending), "").strip() for ending in (*REQUIRED, *OPTIONAL)}
    for ending in REQUIRED:
        if not values[ending]:
            raise ConfigurationError(f"{_variable(name, ending)} is not set, but {NAMES} names {name!r}")
    scopes = values["SCOPES"] or SCOPES
    if "openid" not in scopes.split():
        raise ConfigurationError(f"{_variable(name, 'SCOPES')} is {scopes!r}: it should contain 'openid'")
    issuer = _checked_issuer(values["ISSUER"], _variable(name, "ISSUER"))
    return OidcProvider(name, issuer, values["CLIENT_ID"], values["CLIENT_SECRET"] or None, scopes, values["TITLE"])


def _checked_issuer(url: str, variable: str) -> str:
    """Return the issuer if it uses https, or http on this machine: its tokens decide who is logged in."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
        if secure and parts.hostname and not (parts.query or parts.fragment or "@" in parts.netloc):
            return url
    except ValueError:
        pass
    raise ConfigurationError(f"{variable} should be the provider's issuer, an https:// URL")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reject_unknown_variables(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Reject variables that no provider reads: their names are misspelled."""
    known = {NAMES} | {_variable(name, ending) for name in names for ending in (*REQUIRED, *OPTIONAL)}
    for variable in _oidc_variables(environment):
        if variable not in known:
            raise ConfigurationError(f"{variable} is set, but {NAMES} names no provider that has it")


def _oidc_variables(environment: Mapping[str, str]) -> Iterator[str]:
    return (variable for variable, value in environment.items() if variable.startswith("SANGHA_OIDC_") and value)


def _variable(name: str, ending: str) -> str:
    return f"SANGHA_OIDC_{name.upper()}_{ending}"
