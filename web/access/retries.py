"""Recognise a retry of a request that has no Idempotency-Key.

OpenAI's clients number their retries. Other clients only disconnect and send the same request again.
"""

from dataclasses import dataclass, field

from starlette.datastructures import Headers

from models.accounts.accounts import Caller
from models.platform.ids import new_id
from web.access import idempotency
from web.http import disconnects

#: Request header of OpenAI's clients: 0 for the original request, 1 for its first retry.
RETRY_COUNT = "x-stainless-retry-count"

#: Prefix of the headers that change the result of a request, except for `X-Sangha-On-Disconnect`.
OWN_HEADERS = "x-sangha-"


@dataclass(frozen=True, slots=True)
class RetriableRequest:
    """A request that is an original one or a retry. `seed` generates the ids of its objects, unless it joins others."""

    caller: Caller
    route: str
    headers: Headers
    body: bytes
    seed: str = field(default_factory=lambda: new_id("seed"))

    @property
    def is_numbered(self) -> bool:
        """Whether the client numbers its requests, so that it would mark a retry."""
        return RETRY_COUNT in self.headers

    @property
    def is_retry(self) -> bool:
        """Whether the client has marked the request as a retry."""
        count = self.headers.get(RETRY_COUNT, "")
        return count.isascii() and count.isdigit() and count.strip("0") != ""

    def fingerprint(self) -> str:
        """Hash the caller, credential, route, our headers and body. The retries of a request have the same hash."""
        own = sorted(pair for pair in self.headers.items() if pair[0].startswith(OWN_HEADERS))
        own = [(name, value) for name, value in own if name != disconnects.HEADER]
        caller = self.caller
        target = (caller.account_id, caller.user_id, caller.key_id, self.route, own)
        return idempotency.fingerprint(repr(target), self.body).hex()
