"""The jobs of requests by MCP clients, in Redis, so that a notification which names a request cancels its job.

A client numbers the requests of its session. The notification may reach another web process than the request.
"""

import hashlib

import redis

#: Seconds for which a request is found: longer than it may wait.
KEPT = 900


def store(client: redis.Redis, sender: str, request_id: object, job_id: str) -> None:
    """Store the job of a request. `sender` names the caller and the session. Raises redis.RedisError."""
    client.set(_key(sender, request_id), job_id, ex=KEPT)


def find(client: redis.Redis, sender: str, request_id: object) -> str | None:
    """Return the id of the job of a request. Raises redis.RedisError."""
    job_id = client.get(_key(sender, request_id))
    return job_id.decode() if isinstance(job_id, bytes) else None


def _key(sender: str, request_id: object) -> str:
    # 1 and "1" are two ids of requests.
    return f"sangha:mcp:{hashlib.sha256(f'{sender} {request_id!r}'.encode()).hexdigest()}"
