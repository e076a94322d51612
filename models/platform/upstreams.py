"""Read the OpenAI-compatible endpoints from the environment.

`SANGHA_UPSTREAMS=groq,corp` names them; each has variables of its own, such as `SANGHA_UPSTREAM_GROQ_URL`.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal
from urllib.parse import urlsplit

from models.platform.errors import ConfigurationError
from models.platform.urls import mask_credentials, url_error

NAMES = "SANGHA_UPSTREAMS"

#: Suffixes of an upstream's variables → their meanings, for the reference.
VARIABLES: Mapping[str, str] = {
    "URL": "What the API's paths begin with, such as `https://api.example.com/v1`. Required.",
    "MODELS": "The names of its models there, separated by commas; the first one is the default. Required.",
    "API_KEY": "Its API key; unset: none.",
    "API": "`chat` (Chat Completions) or `responses`; unset: `chat`.",
    "SLOTS": "Answers that each worker requests at the same time, 1 to 1024; unset: 16.",
    "CONTEXT": "Tokens of prompt and answer together; unset: 32,768.",
    "TIMEOUT": "Seconds until an answer begins, after which the request has failed, 1 to 600; unset: 60.",
    "CONTINUES": "`on`: it continues an assistant message at the end of a request, as vLLM and llama-server do; unset:"
    " `off`.",
    "PRICE_INPUT": "What you pay for a million tokens of prompts, in the currency of `SANGHA_SPILL_MONEY`.",
    "PRICE_OUTPUT": "What you pay for a million generated tokens.",
    "RESIDENCY": "`local`: it is in your network, and turns with `residency: local` may use it; `any`: only other turns"
    " may; unset: `local` if its host is this machine, a private address or a name without a dot.",
}

#: Suffixes of variables that must be set.
REQUIRED = ("URL", "MODELS")

#: The pattern of an upstream's name, which is part of the names of its variables, of queues and of models.
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: Names that no upstream may have: `agent/NAME` is an agent, and `sangha` owns the local models.
RESERVED_NAMES = frozenset({"agent", "sangha"})

#: What no upstream's name ends with: the queues of background work do.
RESERVED_ENDING = "_batch"

#: Answers at the same time, by default and at most; and the least and the most tokens of a context.
DEFAULT_SLOTS, MAX_SLOTS = 16, 1024
MIN_CONTEXT, MAX_CONTEXT = 256, 1_048_576

#: Seconds until an answer begins, by default and at most.
DEFAULT_TIMEOUT, MAX_TIMEOUT = 60, 600

#: Tokens of the context of a hosted model. Endpoints do not publish that of their models; nearly all have at least so
#: many.
HOSTED_CONTEXT = 32_768

#: The most that a million tokens may cost.
MAX_PRICE = Decimal(1_000_000)

#: Variables of earlier versions → the suffixes of the variables that replace them.
REPLACED = {"SANGHA_FALLBACK_URL": "URL", "SANGHA_FALLBACK_API_KEY": "API_KEY", "SANGHA_FALLBACK_MODEL": "MODELS"}


@dataclass(frozen=True, slots=True, repr=False)
class Upstream:
    """An OpenAI-compatible endpoint.

    url           what its paths begin with, such as `https://api.example.com/v1`
    models        its models by their names there, the default one first
    api           the API through which it is asked: Chat Completions or Responses
    slots         answers that each worker requests at the same time
    context       tokens of prompt and answer together; None: the default of hosted models
    timeout       seconds until an answer begins
    continues     whether it continues an assistant message at the end of a request
    price_input   what the operator pays for a million tokens of prompts; None: unknown
    price_output  the same for generated tokens
    residency     whether turns that must stay in the operator's network may use it; None: decided by its address
    """

    name: str
    url: str
    models: tuple[str, ...]
    api_key: str | None = None
    api: Literal["chat", "responses"] = "chat"
    slots: int = DEFAULT_SLOTS
    context: int | None = None
    timeout: int = DEFAULT_TIMEOUT
    continues: bool = False
    price_input: Decimal | None = None
    price_output: Decimal | None = None
    residency: Literal["local", "any"] | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is in the operator's network: by its residency, or else by its host's address."""
        return self.residency == "local" if self.residency else _is_private(urlsplit(self.url).hostname or "")

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
        variables |= {_variable(upstream.name, ending): text for ending, text in _texts(upstream).items()}
    return variables


def _texts(upstream: Upstream) -> dict[str, str]:
    """Return the values of an upstream's variables."""
    return {
        "URL": upstream.url,
        "MODELS": ",".join(upstream.models),
        "API_KEY": upstream.api_key or "",
        "API": upstream.api,
        "SLOTS": str(upstream.slots),
        "CONTEXT": str(upstream.context or ""),
        "TIMEOUT": str(upstream.timeout),
        "CONTINUES": "on" if upstream.continues else "off",
        "PRICE_INPUT": "" if upstream.price_input is None else str(upstream.price_input),
        "PRICE_OUTPUT": "" if upstream.price_output is None else str(upstream.price_output),
        "RESIDENCY": upstream.residency or "",
    }


def _is_private(host: str) -> bool:
    """Return whether a host is this machine, a private address, or a name without a dot."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host


def _load(name: str, environment: Mapping[str, str]) -> Upstream:
    _check_name(name)
    values = {ending: environment.get(_variable(name, ending), "").strip() for ending in VARIABLES}
    for ending in REQUIRED:
        if not values[ending]:
            raise ConfigurationError(f"{_variable(name, ending)} is unset, but {NAMES} names {name!r}")
    return _Checks(name, values).upstream()


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{NAMES} names {name!r}: a name begins with a letter and has letters, digits and _")
    if name in RESERVED_NAMES or name.endswith(RESERVED_ENDING):
        raise ConfigurationError(
            f"{NAMES} names {name!r}: a name is not {' or '.join(sorted(RESERVED_NAMES))} and does not end with _batch"
        )


class _Checks:
    """Checks the values of one upstream's variables. Raises ConfigurationError."""

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self._name = name
        self._values = values

    def upstream(self) -> Upstream:
        if self._values["API"] == "responses" and self._values["CONTINUES"] == "on":
            raise self._error("CONTINUES", "should be 'off': only Chat Completions continue a message")
        return Upstream(
            self._name,
            _checked_url(self._values["URL"], _variable(self._name, "URL")),
            self._models(),
            _checked_key(self._values["API_KEY"], _variable(self._name, "API_KEY")),
            api="responses" if self._choice("API", "chat", "responses") == "responses" else "chat",
            slots=self._integer("SLOTS", 1, MAX_SLOTS) or DEFAULT_SLOTS,
            context=self._integer("CONTEXT", MIN_CONTEXT, MAX_CONTEXT),
            timeout=self._integer("TIMEOUT", 1, MAX_TIMEOUT) or DEFAULT_TIMEOUT,
            continues=self._choice("CONTINUES", "on", "off") == "on",
            price_input=self._price("PRICE_INPUT", "PRICE_OUTPUT"),
            price_output=self._price("PRICE_OUTPUT", "PRICE_INPUT"),
            residency=self._residency(),
        )

    def _models(self) -> tuple[str, ...]:
        models = tuple(model.strip() for model in self._values["MODELS"].split(",") if model.strip())
        if not models:
            raise self._error("MODELS", "should name a model")
        if len(set(models)) < len(models):
            raise self._error("MODELS", "names a model twice")
        return models

    def _choice(self, ending: str, *choices: str) -> str:
        """Return a value, or an empty text where it is unset."""
        if self._values[ending] not in ("", *choices):
            raise self._error(ending, f"should be {' or '.join(map(repr, choices))}")
        return self._values[ending]

    def _residency(self) -> Literal["local", "any"] | None:
        match self._choice("RESIDENCY", "local", "any"):
            case "local":
                return "local"
            case "any":
                return "any"
        return None

    def _integer(self, ending: str, least: int, most: int) -> int | None:
        text = self._values[ending]
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
            raise self._error(ending, f"should be a number from {least} to {most}")
        return int(text)

    def _price(self, ending: str, other: str) -> Decimal | None:
        """Return a price. The prices of prompts and of generated tokens are set together, or neither."""
        text = self._values[ending]
        if not text:
            if self._values[other]:
                raise ConfigurationError(
                    f"{_variable(self._name, ending)} is unset, but {_variable(self._name, other)} is set"
                )
            return None
        try:
            price = Decimal(text)
        except InvalidOperation:
            price = Decimal("NaN")
        if not (price.is_finite() and 0 <= price <= MAX_PRICE):
            raise self._error(ending, "should be the price of a million tokens, such as 0.59")
        return price

    def _error(self, ending: str, fault: str) -> ConfigurationError:
        return ConfigurationError(f"{_variable(self._name, ending)} is {self._values[ending]!r}: it {fault}")


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
    known = {_variable(name, ending) for name in names for ending in VARIABLES}
    for variable, value in environment.items():
        if variable.startswith("SANGHA_UPSTREAM_") and value and variable not in known:
            raise ConfigurationError(f"{variable} is set, but {NAMES} names no upstream that has it")


def _variable(name: str, ending: str) -> str:
    return f"SANGHA_UPSTREAM_{name.upper()}_{ending}"
