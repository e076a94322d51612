"""The settings of a process: parsed once from the environment, frozen, passed down.

Nothing here branches on an environment's name. What is unset falls to the embedded default, whose servers listen on
Unix sockets below the data folder, so that `sangha doctor` in a second terminal finds what `sangha up` started.
"""

import hashlib
import ipaddress
import os
import re
import tempfile
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from models.platform.errors import ConfigurationError
from models.platform.oidc_providers import Provider, load_providers

#: The longest path that a Unix socket can have on Linux is 107 bytes; the server's own file name needs some of it.
LONGEST_SOCKET_FOLDER = 80

#: Fields that are never shown.
SECRETS = frozenset({"secret_key", "fallback_api_key"})


def _url_of(*schemes: str) -> AfterValidator:
    expected = " or ".join(f"{scheme}://…" for scheme in schemes)

    def check(value: str | None) -> str | None:
        if value is None:
            return value
        if value.partition("://")[0] not in schemes:
            raise ValueError(f"should be {expected}")
        if (wrong := _malformed(value)) is not None:
            raise ValueError(f"should be a well-formed {expected}{wrong}")
        return value

    return AfterValidator(check)


def _malformed(url: str) -> str | None:
    """What is wrong with the form of a URL, in brackets, or None.

    Parsers quote the piece that they stumble over, which may be half of a password: then nothing is told but that.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # urlsplit looks at these only when asked
        if parts.scheme.startswith("postgres"):
            conninfo_to_dict(url)
    except (ValueError, psycopg.ProgrammingError) as error:
        return "" if "@" in url else f" ({str(error).strip().partition(chr(10))[0]})"
    return None


def _with_host(url: str | None) -> str | None:
    """A URL that names a host and nothing behind it: our pages and links begin at the root."""
    if url is not None and (not (parts := urlsplit(url)).hostname or parts.path.strip("/") or parts.query):
        raise ValueError("should name a host, and have nothing behind it")
    return url


def _endpoint(url: str | None) -> str | None:
    """Where an API begins, such as `https://api.example.com/v1`."""
    if url is not None and (
        not (parts := urlsplit(url)).hostname or "@" in parts.netloc or parts.query or parts.fragment
    ):
        raise ValueError("should be the address that an API's paths begin with, such as https://api.example.com/v1")
    return url


def _header_safe(value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("should be letters, digits and marks of ASCII, without spaces")
    return value


def _sender(value: str) -> str:
    """`Name <address>` or an address alone, as it stands in a From header."""
    _, address = parseaddr(value)
    try:
        _ = Address(addr_spec=address)
    except (MessageError, ValueError, IndexError):
        address = ""
    if "@" not in address.strip("@") or not value.isprintable():
        raise ValueError("should be an address such as Sangha <sangha@example.com>")
    return value


def _bucket_or_folder(value: str | None) -> str | None:
    if value is not None and "://" in value and not (value.startswith("s3://") and urlsplit(value).netloc):
        raise ValueError("should be s3://bucket/… or a folder")
    return value


def _networks(value: str | None) -> str | None:
    for part in (value or "127.0.0.1").split(","):
        try:
            ipaddress.ip_network(part.strip())
        except ValueError:
            raise ValueError("should be addresses or networks such as 10.0.0.0/8,192.0.2.1") from None
    return value


def _script(value: object) -> object:
    """`tokens=20,rate=0` → a dict, for the fields of `Script`."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError("should be a list such as tokens=20,rate=0")
    return {name.strip(): text.strip() for name, _, text in pairs}


class Script(BaseModel):
    """What the scripted engine does, from `SANGHA_SCRIPT=tokens=20,rate=0,…`.

    tokens    how many tokens an answer has: `w0 w1 w2 …`, each followed by a space
    rate      tokens a second for one answer; 0 is as fast as it can
    fail_at   raise an error before this token (0 is the first)
    exit_at   end the process before this token
    hang_at   stop answering before this token, until the caller cancels or the deadline passes
    trigger   the faults above strike only when the last user message contains this word; without it they always strike
    restarts  1 makes an engine that can't continue a prefix, and so begins its answer again
    calls     how many calls an answer has that calls functions, where it may have so many
    preface   how many tokens of text it has before them, where it need not call

    A fault strikes once an attempt. An attempt that goes on exactly where a fault struck passes it, so a fault at a
    later token than 0 is one that a retry mends; at 0, or with `restarts`, it strikes every attempt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(20, ge=0, le=1_000_000)
    rate: float = Field(0, ge=0)
    fail_at: int | None = Field(None, ge=0)
    exit_at: int | None = Field(None, ge=0)
    hang_at: int | None = Field(None, ge=0)
    trigger: str = ""
    restarts: bool = False
    calls: int = Field(1, ge=1, le=16)
    preface: int = Field(0, ge=0, le=1_000_000)


class Settings(BaseModel):
    """One field a variable: `database_url` is `SANGHA_DATABASE_URL`. Standard names keep their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path(".sangha")
    database_url: Annotated[str | None, _url_of("postgresql", "postgres")] = None
    redis_url: Annotated[str | None, _url_of("redis", "rediss", "unix")] = None
    broker_url: Annotated[str | None, _url_of("amqp", "amqps", "redis", "rediss", "unix")] = None
    object_store: Annotated[str | None, AfterValidator(_bucket_or_folder)] = None
    secret_key: Annotated[str | None, Field(min_length=16)] = None

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)

    public_url: Annotated[str | None, _url_of("http", "https"), AfterValidator(_with_host)] = None
    smtp_url: Annotated[str | None, _url_of("smtp", "smtps", "smtp+starttls"), AfterValidator(_with_host)] = None
    mail_from: Annotated[str, AfterValidator(_sender)] = "Sangha <sangha@localhost>"

    oidc_providers: tuple[Provider, ...] = ()

    trusted_proxies: Annotated[str | None, AfterValidator(_networks)] = None
    visits_per_minute: int = Field(120, ge=1)

    engine: Literal["llamacpp", "openai", "scripted"] = "llamacpp"
    model: str | None = None
    embedding_model: str | None = None
    slots: int = Field(4, ge=1, le=256)
    context: int = Field(4096, ge=256, le=1_048_576)
    script: Annotated[Script, BeforeValidator(_script)] = Field(default_factory=lambda: Script.model_validate({}))

    fallback_url: Annotated[str | None, _url_of("http", "https"), AfterValidator(_endpoint)] = None
    fallback_api_key: Annotated[str | None, AfterValidator(_header_safe)] = None
    fallback_model: str | None = None

    reflection: Literal["auto", "on", "off"] = "auto"
    reflection_calls: int = Field(8, ge=0, le=1000)
    reflection_tokens: int = Field(20_000, ge=0, le=10_000_000)
    nightly_meditations: int = Field(1, ge=1, le=64)

    @model_validator(mode="after")
    def _has_what_its_engine_needs(self) -> Self:
        for field in ("fallback_url", "fallback_model"):
            if self.engine == "openai" and getattr(self, field) is None:
                raise ValueError(f"{variable(field)} is unset: SANGHA_ENGINE=openai needs it")
        return self

    @cached_property
    def home(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.expanduser().absolute()

    @cached_property
    def socket_dir(self) -> Path:
        """Where embedded servers put their sockets: below the data folder, or where its path won't do, in /tmp.

        It won't do when it is too long, or has a comma: libpq takes a host with one for a list, however it is quoted.
        """
        inside = self.home / "run"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER and "," not in str(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"sangha-{digest}"

    @property
    def reflects(self) -> bool:
        """Whether the model may write facts and insights. The bundled one is too small to do it well: what it writes is
        junk, so by itself only a model that an operator has chosen does."""
        chosen = self.engine == "openai" or (self.engine == "llamacpp" and self.model is not None)
        return self.reflection == "on" or (self.reflection == "auto" and chosen)

    @property
    def public_address(self) -> str:
        """How people reach the door from outside: what links in letters begin with, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - the answer to it
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def postgres_dsn(self) -> str:
        """Where Postgres answers."""
        return self.database_url or f"postgresql://postgres@/sangha?host={quote(str(self.socket_dir))}"

    @property
    def redis_address(self) -> str:
        """Where Redis or Valkey answers."""
        return self.redis_url or f"unix://{quote(str(self.socket_dir))}/valkey.sock"

    @property
    def broker_address(self) -> str:
        """Where the queue answers: RabbitMQ, or in the embedded default the same Valkey."""
        return self.broker_url or self.redis_address


def load_settings(**overrides: object) -> Settings:
    """Parse the environment; `overrides` come from the command line. An empty variable counts as unset.

    Raises ConfigurationError with one line that names the variable and what it should be.
    """
    given = {field: os.environ.get(variable(field)) or None for field in Settings.model_fields} | overrides
    given["oidc_providers"] = load_providers(os.environ) or None
    try:
        return Settings.model_validate({field: value for field, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, given)) from None


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    return f"SANGHA_{field.upper()}"


def _one_line(error: ValidationError, given: dict[str, object]) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:  # of no one field: it names what it means
        return message
    field, *inner = [str(part) for part in first["loc"]]
    where = f" (in {'.'.join(inner)})" if inner else ""
    value = "***" if field in SECRETS else _without_password(repr(given[field]))
    return f"{variable(field)} is {value}: it {message}{where}"


def _without_password(text: str) -> str:
    """A URL whose credentials are masked: up to its last @, since a malformed one may have more, and in its query."""
    return re.sub(r"password=[^&'\"]*", "password=***", re.sub(r"//.*@", "//***@", text))
