"""The request as endpoints receive it: authenticated, limited, and read."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.datastructures import Headers, QueryParams

from models.access.idempotency import PriorUse
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.accounts.plans import Allowance
from models.billing.prepaid import METHOD_GATEWAYS
from models.platform.errors import NotAuthenticated
from models.platform.ids import IdGenerator
from pipelines.inference.registry import context_size
from web.access.gate import Admission, AuthRequest
from web.access.retries import RetriableRequest
from web.access.rights import Rights
from web.api.file_forms import ReceivedFile
from web.api.platform import Platform
from web.http.uploads import Upload
from web.streams.sse import StreamPermit


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    ip             the client's address
    path_params    parameters of the path
    body           the whole body; for an upload, and a form with a file, the digest of its content
    received       the form with a file
    stream_permit  to be acquired before anything is created whose events the response streams
    ids            generates ids; under an Idempotency-Key the same ids for every repeat
    cleanup        callbacks that run when the response has been sent or has failed
    repeat         what earlier requests with the same Idempotency-Key have done
    add_headers    adds headers to the response, including an error response
    retriable      identifies a request that creates turns and has no Idempotency-Key, and its retries
    """

    platform: Platform
    admission: Admission
    request_id: str
    ip: str
    path_params: dict[str, str]
    query: QueryParams
    headers: Headers
    body: bytes
    stream_permit: StreamPermit
    upload: Upload | None = None
    received: ReceivedFile | None = None
    ids: IdGenerator = field(default_factory=IdGenerator)
    cleanup: ExitStack = field(default_factory=ExitStack)
    repeat: PriorUse = "first"
    add_headers: Callable[[Mapping[str, str]], None] = lambda _: None
    retriable: RetriableRequest | None = None

    @property
    def caller(self) -> Caller:
        """The authenticated caller. Raises NotAuthenticated on a public route."""
        if self.admission.identity is None:
            raise NotAuthenticated("This request needs an access token or an API key.")
        return self.admission.identity

    def authenticate_user(self) -> Caller | None:
        """Return the logged-in user on a public route, or None without credentials. Blocks like `Gate.admit`."""
        if "authorization" not in self.headers:
            return None
        return self.platform.gate.admit(AuthRequest(self.headers, self.ip, Rights.PERSON, 1)).identity

    def new_id(self, prefix: str) -> str:
        """Generate the id of something that this request creates."""
        return self.ids.new(prefix)

    @property
    def allowance(self) -> Allowance:
        """What the jobs that the request creates may use."""
        admission = self.admission
        settings = self.platform.settings
        return Allowance(
            admission.limits,
            admission.estimated_tokens,
            context_size(settings),
            admission.billed,
            method_required=settings.gateway in METHOD_GATEWAYS,
        )

    @property
    def origin(self) -> RequestOrigin:
        """The origin of the request, for the audit log."""
        agent = self.headers.get("user-agent", "").encode("utf-8", "replace").decode().replace("\0", "")
        return RequestOrigin(self.ip, agent, self.request_id)
