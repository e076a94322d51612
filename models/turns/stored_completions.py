"""Stored chat completions: responses whose turns were created with `store` by the API of chat completions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from psycopg.types.json import Json, Jsonb

from models.accounts.ownership import Access
from models.platform.database import Connection, fetch_all, fetch_one
from models.turns.responses import ACCESSIBLE, OF_JOB, OF_RESPONSE, Response

# A completion exists once it has an answer. Its job may have moved to `ended_jobs`.
SELECT = f"""
SELECT {OF_RESPONSE}, {OF_JOB}
FROM responses JOIN all_jobs AS jobs ON jobs.id = responses.job_id
WHERE is_completion AND {ACCESSIBLE} AND jobs.state = 'completed'
"""

READ = f"{SELECT} AND responses.id = %(id)s"


def read(connection: Connection, response_id: str, access: Access) -> Response | None:
    """Return a stored completion if the caller has access to it."""
    row = fetch_one(connection, READ, {"id": response_id, **access.parameters})
    return Response(**row) if row else None


@dataclass(frozen=True, slots=True)
class CompletionFilter:
    """Which stored completions to list: those with this model and all these pairs of metadata, after the id `after`."""

    order: Literal["asc", "desc"] = "asc"
    after: str | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


MATCHES = """
  AND (%(model)s::text IS NULL OR responses.request ->> 'model' = %(model)s)
  AND (responses.request -> 'metadata')::jsonb @> %(metadata)s
"""
AFTER = "(%(after)s::text IS NULL OR responses.id {} %(after)s)"
LISTS = {
    "asc": f"{SELECT}{MATCHES} AND {AFTER.format('>')} ORDER BY responses.id LIMIT %(limit)s",
    "desc": f"{SELECT}{MATCHES} AND {AFTER.format('<')} ORDER BY responses.id DESC LIMIT %(limit)s",
}


def list_completions(connection: Connection, access: Access, filter_: CompletionFilter, limit: int) -> list[Response]:
    """Return at most `limit` of the caller's stored completions."""
    parameters = {
        **access.parameters, "model": filter_.model, "metadata": Jsonb(dict(filter_.metadata)), "after": filter_.after,
        "limit": limit,
    }  # fmt: skip
    return [Response(**row) for row in fetch_all(connection, LISTS[filter_.order], parameters)]


UPDATE = f"""
UPDATE responses SET request = %(request)s WHERE id = %(id)s AND is_completion AND {ACCESSIBLE}
"""


def update_metadata(connection: Connection, response: Response, access: Access, metadata: Mapping[str, str]) -> None:
    """Replace the metadata of a stored completion. Nothing else of its request ever changes."""
    request = Json({**response.request, "metadata": dict(metadata)})
    connection.execute(UPDATE, {"id": response.id, "request": request, **access.parameters})
