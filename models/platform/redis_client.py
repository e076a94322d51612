"""Create Redis clients that survive a restart of the server."""

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

#: Retries of a lost connection, and the seconds between them; callers that can wait longer retry themselves. A time-out
#: is not retried.
RETRIES = 4
RETRY_DELAY = 0.05

#: Seconds that a reply may take.
TIMEOUT = 5.0


def connect(url: str, *, timeout: float = TIMEOUT) -> redis.Redis:
    """Create a client with a connection pool that returns bytes. It connects on first use."""
    retry = Retry(ConstantBackoff(RETRY_DELAY), RETRIES, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=2, retry=retry, protocol=2)
