"""Read the OpenAI-compatible endpoints from the environment.

`SANGHA_UPSTREAMS=groq,corp` names them; each has variables of its own, such as `SANGHA_UPSTREAM_GROQ_URL`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from models.platform.errors import ConfigurationError
from models.platform.urls import mask_credentials, url_error

NAMES = "SANGHA_UPSTREAMS"

#: Suffixes of an upstream's variables: required and optional ones.
REQUIRED, OPTIONAL = ("URL", "MODELS"), ("API_KEY",)

#: The pattern of an upstream's name, which is part of the names of its variables.
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: Variables of earlier versions → the suffixes of the variables that replace them.
REPLACED = {"SANGHA_FALLBACK_URL": "URL", "SANGHA_FALLBACK_API_KEY": "API_KEY", "SANGHA_FALLBACK_MODEL": "MODELS"}


@dataclass(frozen=True, slots=True, repr=False)
class Upstream:
    """An OpenAI-compatible endpoint.

    url     what its paths begin with, such as `https://api.example.com/v1`
    models  its models by their names there, the default one first
    """

    name: str
    url: str
    models: tuple[str, ...]
    api_key: str | None = None

    def __repr__(self) -> str:
        """Return the upstream without its API key."""
        return f"Upstream({self.name!r}, {self.url!r}, {self.models!r})"


def load_upstreams(environment: Mapping[str, str]) -> tuple[Upstream, ...]:
    """Read all upstreams.

    Raises ConfigurationError with one line that names the variable and never contains a secret.
    """
    _reject_replaced(environment)
    names = [name.strip().lower() for name in environment.get(NAMES, "").split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{NAMES} is {environment[NAMES]!r}: it names an upstream twice")
    upstreams = tuple(_load(name, environment) for name in names)
    _reject_unknown(names, environment)
    return upstreams


def upstream_variables(upstreams: Iterable[Upstream]) -> dict[str, str]:
    """Return the environment variables of these upstreams, the inverse of `load_upstreams`."""
    variables: dict[str, str] = {NAMES: ",".join(upstream.name for upstream in upstreams)}
    for upstream in upstreams:
        values = {"URL": upstream.url, "MODELS": ",".join(upstream.models), "API_KEY": upstream.api_key or ""}
        variables |= {_variable(upstream.name, ending): value for ending, value in values.items()}
    return variables


def _load(name: str, environment: Mapping[str, str]) -> Upstream:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{NAMES} names {name!r}: a name begins with a letter and has letters, digits and _")
    values = {ending: environment.get(_variable(name, ending), "").strip() for ending in (*REQUIRED, *OPTIONAL)}
    for ending in REQUIRED:
        if not values[ending]:
            raise ConfigurationError(f"{_variable(name, ending)} is unset, but {NAMES} names {name!r}")
    models = tuple(model.strip() for model in values["MODELS"].split(",") if model.strip())
    if not models:
        raise ConfigurationError(f"{_variable(name, 'MODELS')} is {values['MODELS']!r}: it should name a model")
    url = _checked_url(values["URL"], _variable(name, "URL"))
    return Upstream(name, url, models, _checked_key(values["API_KEY"], _variable(name, "API_KEY")))


def _checked_url(url: str, variable: str) -> str:
    fault = url_error(url, "http", "https")
    if fault is None:
        parts = urlsplit(url)
        if parts.hostname and not (parts.query or parts.fragment or "@" in parts.netloc):
            return url
        fault = "should be the address that an API's paths begin with, such as https://api.example.com/v1"
    raise ConfigurationError(f"{variable} is {mask_credentials(repr(url))}: it {fault}")


def _checked_key(key: str, variable: str) -> str | None:
    """Return the API key, or None. Raises ConfigurationError if it cannot be sent in a header."""
    if key.isascii() and (key.isprintable() and " " not in key):
        return key or None
    raise ConfigurationError(f"{variable} is ***: it should be ASCII letters, digits and punctuation, without spaces")


def _reject_replaced(environment: Mapping[str, str]) -> None:
    for variable, ending in REPLACED.items():
        if environment.get(variable):
            raise ConfigurationError(
                f"{variable} is no longer read: name the endpoint, as in {NAMES}=corp, and set "
                f"{_variable('corp', ending)} instead"
            )


def _reject_unknown(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Reject variables that no upstream reads: their names are misspelled."""
    known = {_variable(name, ending) for name in names for ending in (*REQUIRED, *OPTIONAL)}
    for variable, value in environment.items():
        if variable.startswith("SANGHA_UPSTREAM_") and value and variable not in known:
            raise ConfigurationError(f"{variable} is set, but {NAMES} names no upstream that has it")


def _variable(name: str, ending: str) -> str:
    return f"SANGHA_UPSTREAM_{name.upper()}_{ending}"
