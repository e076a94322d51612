"""The settings of a process, parsed once from the environment.

Unset settings select the embedded servers, which listen on Unix sockets in the data folder, so that `sangha doctor` in
another terminal finds the servers of `sangha up`.
"""

import hashlib
import os
import tempfile
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

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
from models.platform.oidc_providers import OidcProvider, load_oidc_providers
from models.platform.operator_servers import OperatorServer, load_operator_servers
from models.platform.redis_url import BROKER_SCHEMES, REDIS_SCHEMES
from models.platform.script import Script
from models.platform.setting_checks import (
    bucket_or_folder,
    domains,
    egress_rules,
    host_and_port,
    networks,
    origins,
    script_fields,
    sender,
    served_name,
    upper_case,
    url_of,
    with_host,
)
from models.platform.upstreams import Upstream, load_upstreams
from models.platform.urls import mask_credentials

#: The path of a Unix socket has at most 107 bytes on Linux, and the server appends a file name.
MAX_SOCKET_FOLDER = 80

#: Fields whose values are never shown.
SECRETS = frozenset({"secret_key", "metrics_token", "stripe_secret_key", "stripe_webhook_secret"})

#: The beginnings of fields whose variables have the names that other programs use for them, too.
STANDARD_NAMES = ("kubernetes_", "pod_", "sentry_", "stripe_")


class Settings(BaseModel):
    """The settings: `database_url` is read from `SANGHA_DATABASE_URL`, and so on. Standard names keep their own."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),  # model_name is a field
    )

    data_dir: Path = Path(".sangha")
    """Folder of the embedded servers' data, the secret key, process ids and, without an object store, files."""
    database_url: Annotated[str | None, url_of("postgresql", "postgres")] = None
    """Postgres 15 or later with pgvector; unset: an embedded server."""
    database_pooler_url: Annotated[str | None, url_of("postgresql", "postgres")] = None
    """PgBouncer in transaction mode in front of `SANGHA_DATABASE_URL`; unset: processes connect to Postgres itself."""
    redis_url: Annotated[str | None, url_of(*REDIS_SCHEMES)] = None
    """Redis 7 or later, or Valkey, also `redis+cluster://…` and `redis+sentinel://…`; unset: an embedded server."""
    stream_shards: int = Field(4, ge=1, le=8)
    """Redis streams through which workers announce events; can be changed one worker at a time."""
    broker_url: Annotated[str | None, url_of("amqp", "amqps", *BROKER_SCHEMES)] = None
    """RabbitMQ 3.10 or later, or Redis; unset: the server of `SANGHA_REDIS_URL`."""
    object_store: Annotated[str | None, AfterValidator(bucket_or_folder)] = None
    """`s3://BUCKET/PREFIX` or a folder; unset: `DATA_DIR/objects`."""
    object_store_endpoint: Annotated[str | None, url_of("http", "https")] = None
    """Address of an S3-compatible service; unset: `AWS_ENDPOINT_URL`, or AWS in `AWS_REGION`."""
    object_store_path_style: bool = True
    """Whether requests name the bucket in the path, which every service accepts; 0: in the host name."""
    object_store_sse: Annotated[str | None, Field(pattern="^(AES256|aws:kms(:.+)?)$")] = None
    """Encryption by the S3 service: `AES256`, `aws:kms` or `aws:kms:KEY_ID`; unset: as the bucket is configured."""
    presigned_downloads: bool = False
    """Whether downloads of files are redirected to signed URLs of the S3 service, where it can sign them."""
    secret_key: Annotated[str | None, Field(min_length=16)] = None
    """Source of the signing and encryption keys, the same on all machines; unset: `DATA_DIR/secret_key`."""

    host: str = "127.0.0.1"
    """Address that the web process listens on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port that the web process listens on; 0: any free port."""

    tls_cert: Path | None = None
    """PEM file of the certificate, with its chain, by which the web process speaks TLS; unset: plain HTTP."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key; both files are read again when they change."""

    metrics_address: Annotated[str | None, AfterValidator(host_and_port)] = None
    """`HOST:PORT` that serves the metrics of a process; unset: web processes serve them on the main port, to operators
    and the machine."""
    metrics_token: Annotated[str | None, Field(min_length=16, pattern=r"^[!-~]+$")] = None
    """Bearer token that `/metrics` requires, at every address."""

    log_format: Literal["text", "json"] = "text"
    """Format of log lines: `text` for people, or `json`, with the field names of the Elastic Common Schema."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(upper_case)] = "INFO"
    """Lowest level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`; `sangha log-level` changes it for a while."""
    sentry_dsn: Annotated[str | None, url_of("http", "https")] = None
    """Where errors are reported: `https://KEY@HOST/PROJECT` of Sentry; unset: nowhere."""
    sentry_environment: str | None = None
    """Environment of the reports, such as `staging`; unset: `production`."""
    sentry_release: str | None = None
    """Release of the reports; unset: `sangha@VERSION`."""

    public_url: Annotated[str | None, url_of("http", "https"), AfterValidator(with_host)] = None
    """URL of this installation for browsers and e-mail links; unset: derived from host and port."""
    smtp_url: Annotated[str | None, url_of("smtp", "smtps", "smtp+starttls"), AfterValidator(with_host)] = None
    """Mail server, with credentials if it needs them; unset: e-mails are written to `DATA_DIR/mailbox`."""
    mail_from: Annotated[str, AfterValidator(sender)] = "Sangha <sangha@localhost>"
    """Sender of e-mails."""

    oidc_providers: tuple[OidcProvider, ...] = ()
    """Names of the OIDC providers that users may log in with; each has variables of its own."""

    signup: Literal["open", "invited", "closed"] = "open"
    """Who may become a user: anybody, people who are invited to an account, or nobody."""
    signup_domains: Annotated[tuple[str, ...], BeforeValidator(domains)] = ()
    """Domains of e-mail addresses that may sign up without an invitation, such as `example.com`; unset: any."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(domains)] = ()
    """Host names that requests may be for, beside IP addresses, names without a dot and the public one; `*`: any."""

    cors_origins: Annotated[tuple[str, ...], BeforeValidator(origins)] = ()
    """Origins whose pages may use the API, such as `https://app.example.com`; `*`: any; unset: none."""

    trusted_proxies: Annotated[str | None, AfterValidator(networks)] = None
    """Addresses or networks of reverse proxies whose `X-Forwarded-For` is trusted; unset: none."""
    visits_per_minute: int = Field(120, ge=1)
    """Unauthenticated requests and failed authentications per minute that one client address may make."""
    connections_per_address: int | None = Field(None, ge=1)
    """Open connections of one client address (IPv6: /64 network) to a web process, except those of trusted proxies;
    unset: a quarter of the files that the process may open."""

    engine: str = "llamacpp"
    """Engine that generates text: `llamacpp`, `ctransformers`, `openai` or `scripted`."""
    model: str | None = None
    """GGUF file of the language model; unset: the bundled model."""
    model_name: Annotated[str | None, AfterValidator(served_name)] = None
    """Name of the language model in requests; unset: that of its file."""
    default_model: Annotated[str | None, AfterValidator(served_name)] = None
    """Model that `default` and requests without a model mean; unset: `SANGHA_MODEL`, or the only one that is served."""
    embedding_model: str | None = None
    """GGUF file of the embedding model; unset: the bundled model."""
    slots: int = Field(4, ge=1, le=256)
    """Concurrent answers per inference worker."""
    prompt_cache: Literal["shared", "account"] = "shared"
    """`account`: the time to the first token does not show what other accounts have sent; with llama.cpp, a
    conversation whose slot was taken since is read again."""
    context: int | None = Field(None, ge=256, le=1_048_576)
    """Tokens of prompt and answer together; unset: those of the GGUF model, up to what the memory holds, 32,768 of a
    hosted one, and 4,096 of the engine `scripted`."""
    script: Annotated[Script, BeforeValidator(script_fields)] = Field(default_factory=lambda: Script.model_validate({}))
    """Answers and faults of the scripted engine, such as `tokens=20,rate=0`."""

    egress_allow: Annotated[tuple[str, ...], BeforeValidator(egress_rules)] = ("*",)
    """Hosts that callers may have requests sent to: `*` is every public address, `mcp.internal`, `*.example.com` and
    `10.1.0.0/16` may be private, each also with a port."""
    egress_deny: Annotated[tuple[str, ...], BeforeValidator(egress_rules)] = ()
    """Hosts and networks that callers may not have requests sent to, whatever `SANGHA_EGRESS_ALLOW` has."""
    mcp_servers: tuple[OperatorServer, ...] = ()
    """Names of the MCP servers that every account may use; each has variables of its own. Only here a server may be a
    program."""
    web_fetch_allow: Annotated[tuple[str, ...], BeforeValidator(egress_rules)] = ()
    """Hosts whose pages the tool `web_fetch` may read, such as `*.example.com`; `*`: any; unset: there is no such
    tool."""
    run_python: Literal["on", "off"] = "on"
    """Whether turns may run programs in a sandbox by the tool `run_python`."""
    tool_output_bytes: int = Field(262_144, ge=1_024, le=4_194_304)
    """Bytes of a tool's output that a model gets. The whole of a longer one is in a file for a week."""
    approval_hours: int = Field(24, ge=1, le=8_760)
    """Hours in which a person can approve a call of a tool; an agent may allow less."""

    upstreams: tuple[Upstream, ...] = ()
    """Names of the OpenAI-compatible endpoints; each has variables of its own. The engine `openai` uses the first."""

    spill_to: Annotated[str | None, Field(min_length=1)] = None
    """Endpoint that answers turns of local models which would wait too long, as `groq` or `groq/MODEL`; unset: none
    leaves."""
    spill_after: float = Field(10.0, ge=0, le=3600)
    """Seconds that a turn waits, or would wait, before it goes to `SANGHA_SPILL_TO`."""
    spill_money: Decimal | None = Field(None, ge=0, allow_inf_nan=False)
    """Most that such turns may cost on a day (UTC), in the currency of the endpoint's prices; unset: no limit."""
    spill_share: float | None = Field(None, ge=0, le=1)
    """Largest part of a day's turns that may go there, from 0 to 1; unset: no limit."""
    priority_seconds: float = Field(5.0, gt=0, le=3600)
    """Seconds within which a turn of the tier `priority` begins to be answered; a later one has the standard price."""
    residency: Literal["any", "local"] = "any"
    """Whether turns of accounts without a residency of their own may leave your network."""

    gateway: Literal["test", "stripe", "manual"] = "test"
    """Where payments are made: `test` is a simulator, and `manual` waits until an operator marks them as paid."""
    stripe_secret_key: Annotated[str | None, Field(min_length=8)] = None
    """Secret or restricted API key of Stripe; the gateway `stripe` needs it."""
    stripe_webhook_secret: Annotated[str | None, Field(min_length=8)] = None
    """Signing secret of the webhook endpoint that Stripe sends events to; the gateway `stripe` needs it."""
    stripe_api_base: Annotated[str | None, url_of("http", "https"), AfterValidator(with_host)] = None
    """URL of Stripe's API, for tests; unset: `https://api.stripe.com`."""

    reflection: Literal["auto", "on", "off"] = "auto"
    """Whether the language model writes facts and insights; `auto`: unless it is the bundled or the scripted one."""
    reflection_calls: int = Field(8, ge=0, le=1000)
    """Calls of the language model per meditation, and per search for facts."""
    reflection_tokens: int = Field(20_000, ge=0, le=10_000_000)
    """Tokens of the language model per meditation."""
    nightly_meditations: int = Field(1, ge=1, le=64)
    """Nightly meditations that run at the same time."""

    pod_name: str | None = None
    """Name of the pod that a worker writes the number of its running jobs into, on Kubernetes; unset: none."""
    pod_namespace: str | None = None
    """Namespace of that pod."""
    kubernetes_service_host: str | None = None
    """Host of Kubernetes' API server, which Kubernetes itself sets."""
    kubernetes_service_port: int = Field(443, ge=1, le=65535)
    """Port of Kubernetes' API server, which Kubernetes itself sets."""

    @model_validator(mode="after")
    def _check_gateway(self) -> "Settings":
        if self.gateway == "stripe":
            for field in ("stripe_secret_key", "stripe_webhook_secret"):
                if getattr(self, field) is None:
                    raise ValueError(f"{variable_name(field)} is unset: SANGHA_GATEWAY=stripe needs it")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, present = ("tls_key", "tls_cert") if self.tls_cert else ("tls_cert", "tls_key")
            raise ValueError(f"{variable_name(missing)} is unset: {variable_name(present)} needs it")
        return self

    @model_validator(mode="after")
    def _check_spill(self) -> "Settings":
        if self.spill_to is None:
            return self
        target = self.spill_target
        if target is None:
            raise ValueError(f"SANGHA_SPILL_TO is {self.spill_to!r}: SANGHA_UPSTREAMS has no such endpoint and model")
        if self.engine == "openai" and target == (self.upstreams[0], self.upstreams[0].models[0]):
            raise ValueError(f"SANGHA_SPILL_TO is {self.spill_to!r}: that is what SANGHA_ENGINE=openai uses itself")
        if self.spill_money is not None and None in (target[0].price_input, target[0].price_output):
            prices = f"SANGHA_UPSTREAM_{target[0].name.upper()}_PRICE_INPUT and _PRICE_OUTPUT"
            raise ValueError(f"{prices} must be set: SANGHA_SPILL_MONEY needs them")
        return self

    @property
    def spill_target(self) -> tuple[Upstream, str] | None:
        """The endpoint and its model that SANGHA_SPILL_TO names; None: nothing spills."""
        name, _, model = (self.spill_to or "").partition("/")
        upstream = next((each for each in self.upstreams if each.name == name.lower()), None)
        if upstream is None or (model and model not in upstream.models):
            return None
        return upstream, model or upstream.models[0]

    @cached_property
    def home(self) -> Path:
        """The absolute path of the data folder."""
        return self.data_dir.expanduser().absolute()

    @cached_property
    def socket_dir(self) -> Path:
        """The folder of the embedded servers' sockets: in the data folder, or in /tmp if its path is not suitable.

        A path is not suitable if it is too long or has a comma: libpq reads a host with one as a list, even if quoted.
        """
        inside = self.home / "run"
        if len(os.fsencode(inside)) <= MAX_SOCKET_FOLDER and "," not in str(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"sangha-{digest}"

    @property
    def public_address(self) -> str:
        """The URL that links in e-mails begin with, without a trailing slash."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - replaced by the loopback address
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def scheme(self) -> str:
        """The scheme of the web process's own URLs."""
        return "https" if self.tls_cert else "http"

    @property
    def postgres_dsn(self) -> str:
        """The DSN of Postgres."""
        return self.database_url or f"postgresql://postgres@/sangha?host={quote(str(self.socket_dir))}"

    @property
    def redis_address(self) -> str:
        """The URL of Redis or Valkey."""
        return self.redis_url or f"unix://{quote(str(self.socket_dir))}/valkey.sock"

    @property
    def broker_address(self) -> str:
        """The URL of the queue: RabbitMQ, or Redis or Valkey."""
        return self.broker_url or self.redis_address


def load_settings(**overrides: object) -> Settings:
    """Parse the environment. `overrides` come from the command line; an empty variable counts as unset.

    Raises ConfigurationError with one line that names the variable and the value expected.
    """
    values = {field: os.environ.get(variable_name(field)) or None for field in Settings.model_fields} | overrides
    values["oidc_providers"] = load_oidc_providers(os.environ) or None
    values["upstreams"] = load_upstreams(os.environ) or None
    values["mcp_servers"] = load_operator_servers(os.environ) or None
    try:
        return Settings.model_validate({field: value for field, value in values.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, values)) from None


def variable_name(field: str) -> str:
    """Return the name of a field's environment variable."""
    return field.upper() if field.startswith(STANDARD_NAMES) else f"SANGHA_{field.upper()}"


def _one_line(error: ValidationError, values: dict[str, object]) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ").partition(", unable to parse")[0]
    if not first["loc"]:  # an error of several fields: the message names them
        return message
    field, *inner = [str(part) for part in first["loc"]]
    where = f" (in {'.'.join(inner)})" if inner else ""
    value = "***" if field in SECRETS else mask_credentials(repr(values[field]))
    return f"{variable_name(field)} is {value}: it {message}{where}"
