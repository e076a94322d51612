"""Files of requests, for tests of batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines.files.store import store_file


def request_line(number: int = 1, url: str = "/v1/responses", **body: Any) -> dict[str, Any]:
    """Return a line with a request to an endpoint, by default for a response."""
    given = body or {"model": "default", "input": f"number {number}"}
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": given}


def jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the content of a file with these lines."""
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def store_requests(
    database: Database,
    objects: ObjectStore,
    account_id: str,
    user_id: str,
    content: bytes | None = None,
    purpose: str = "batch",
) -> str:
    """Store a file of requests, by default of one; returns its id."""
    return store_file(
        database,
        objects,
        account_id=account_id,
        user_id=user_id,
        file_id=new_id("file"),
        filename="requests.jsonl",
        purpose=purpose,
        content_type="application/jsonl",
        content=iter([jsonl([request_line()]) if content is None else content]),
        audience="user",
        days=None,
        job_id=None,
    ).id
