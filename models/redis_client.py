"""The one way to Redis: clients that ride out a restart of the server."""

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

#: A lost connection is tried again at once and a few times more; who can wait longer does so himself.
RETRIES = 4
PAUSE = 0.05


def connect(url: str) -> redis.Redis:
    """A client with a pool of connections, answering in bytes. It connects when first used."""
    return redis.Redis.from_url(
        url, socket_timeout=10, socket_connect_timeout=2, retry=Retry(ConstantBackoff(PAUSE), RETRIES), protocol=2
    )
