"""The one way to Redis: clients that ride out a restart of the server."""

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

#: A lost connection is tried again at once and a few times more; who can wait longer does so himself. A server that
#: does not answer is not asked again: whoever waits for it has waited long enough.
RETRIES = 4
PAUSE = 0.05

#: Seconds that an answer may take.
TIMEOUT = 5.0


def connect(url: str, *, timeout: float = TIMEOUT) -> redis.Redis:
    """A client with a pool of connections, answering in bytes. It connects when first used."""
    retry = Retry(ConstantBackoff(PAUSE), RETRIES, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=2, retry=retry, protocol=2)
