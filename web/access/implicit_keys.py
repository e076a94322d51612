"""Idempotency keys for requests without one, of clients that number their retries.

OpenAI's clients send a request again when its connection breaks, without an Idempotency-Key. The number in its header
says that it is a retry, and its content which request it repeats.
"""

import logging

import redis

from models.access import original_requests
from models.access.original_requests import OriginalRequest
from web.access.retries import RetriableRequest

log = logging.getLogger(__name__)

#: Prefix of the keys. A client's own keys have no space.
PREFIX = "implicit "


def implicit_key(client: redis.Redis, request: RetriableRequest) -> str | None:
    """Return the key of an original request, which its retries get, too.

    None where the client does not number its requests, while Redis is unavailable, and for a retry that cannot be
    assigned to one original request alone, such as of two equal ones: it creates a thing of its own.
    """
    if not request.is_numbered:
        return None
    try:
        return PREFIX + seed if (seed := _seed_of(client, request)) else None
    except redis.RedisError as error:
        log.warning("A retry of this request would not be recognised: %s", error)
        return None


def _seed_of(client: redis.Redis, request: RetriableRequest) -> str | None:
    fingerprint = request.fingerprint()
    if not request.is_retry:
        original_requests.store(client, fingerprint, OriginalRequest(request.seed))
        return request.seed
    originals = original_requests.find_all(client, fingerprint)
    return originals[0].seed if len(originals) == 1 else None
