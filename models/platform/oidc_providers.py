"""The OIDC providers that people may log in with, from the environment.

`SANGHA_OIDC_PROVIDERS=google,corp` names them; each has variables of its own, such as `SANGHA_OIDC_CORP_ISSUER`.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from models.platform.errors import ConfigurationError

NAMES = "SANGHA_OIDC_PROVIDERS"

#: What a provider's variables end with, and whether it needs them. Without a secret it is a public client, with PKCE.
NEEDED, OPTIONAL = ("ISSUER", "CLIENT_ID"), ("CLIENT_SECRET", "SCOPES", "TITLE")

#: What is asked of a provider unless a variable says otherwise.
SCOPES = "openid email profile"

#: Fit for an address, for a variable, and for a row of `identities`, where it must stay what it is.
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: An address of ours, which a provider can't have.
TAKEN = "exchange"


@dataclass(frozen=True, slots=True, repr=False)
class OidcProvider:
    """One of them. `title` is for people; `issuer` is how it names itself, to the letter."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None = None
    scopes: str = SCOPES
    title: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or self.name.replace("_", " ").title()

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Provider({self.name!r}, {self.issuer!r})"


def load_oidc_providers(environment: Mapping[str, str]) -> tuple[OidcProvider, ...]:
    """All of them. Raises ConfigurationError with one line that names the variable, and never shows a secret."""
    names = [name.strip().lower() for name in environment.get(NAMES, "").split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{NAMES} is {environment[NAMES]!r}: it names a provider twice")
    providers = tuple(_load(name, environment) for name in names)
    _refuse_strays(names, environment)
    return providers


def _load(name: str, environment: Mapping[str, str]) -> OidcProvider:
    if not NAME.fullmatch(name) or name == TAKEN:
        raise ConfigurationError(f"{NAMES} names {name!r}: a name has letters, digits and _, and is not {TAKEN!r}")
    given = {ending: environment.get(_variable(name, ending), "").strip() for ending in (*NEEDED, *OPTIONAL)}
    for ending in NEEDED:
        if not given[ending]:
            raise ConfigurationError(f"{_variable(name, ending)} is not set, but {NAMES} names {name!r}")
    scopes = given["SCOPES"] or SCOPES
    if "openid" not in scopes.split():
        raise ConfigurationError(f"{_variable(name, 'SCOPES')} is {scopes!r}: it should have 'openid' in it")
    issuer = _checked_issuer(given["ISSUER"], _variable(name, "ISSUER"))
    return OidcProvider(name, issuer, given["CLIENT_ID"], given["CLIENT_SECRET"] or None, scopes, given["TITLE"])


def _checked_issuer(url: str, variable: str) -> str:
    """Over https, except on this machine: what comes from there says who people are."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and _here(parts.hostname or ""))
        if secure and parts.hostname and not (parts.query or parts.fragment or "@" in parts.netloc):
            return url
    except ValueError:
        pass
    raise ConfigurationError(f"{variable} should be the https:// address that the provider names itself by")


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_strays(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """A variable that nobody reads is a mistake in its name."""
    known = {NAMES} | {_variable(name, ending) for name in names for ending in (*NEEDED, *OPTIONAL)}
    for variable in _ours(environment):
        if variable not in known:
            raise ConfigurationError(f"{variable} is set, but {NAMES} names no provider that has it")


def _ours(environment: Mapping[str, str]) -> Iterator[str]:
    return (variable for variable, value in environment.items() if variable.startswith("SANGHA_OIDC_") and value)


def _variable(name: str, ending: str) -> str:
    return f"SANGHA_OIDC_{name.upper()}_{ending}"
