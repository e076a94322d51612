"""Read the tree of jobs below a job."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from models.accounts.ownership import Access
from models.jobs.jobs import COLUMNS, Job
from models.platform.database import Connection, fetch_all

# A tree moves to `ended_jobs` in one transaction, so one statement sees all of it. The depth bounds the recursion; a
# branch that another tree has adopted is left out.
TREE = f"""
WITH RECURSIVE tree AS (
    SELECT id AS tree_id, 0 AS level FROM all_jobs WHERE id = %(id)s AND account_id = %(account_id)s
    UNION ALL
    SELECT all_jobs.id, level + 1 FROM all_jobs JOIN tree ON all_jobs.parent_id = tree_id WHERE level < %(levels)s
)
SELECT {COLUMNS.replace("jobs.", "all_jobs.")}, responses.id AS tree_response_id,
       responses.request -> 'agent' ->> 'name' AS tree_agent, responses.usage AS tree_usage
FROM tree JOIN all_jobs ON all_jobs.id = tree_id LEFT JOIN responses ON responses.job_id = tree_id
WHERE %(after)s::text IS NULL OR tree_id > %(after)s
ORDER BY tree_id LIMIT %(limit)s
"""

MEMBERS = """
SELECT id, account_id = %(account_id)s AND coalesce(root_id, id) = %(root_id)s AS is_member FROM all_jobs
WHERE id = ANY(%(ids)s)
"""


def members(connection: Connection, ids: Collection[str], root: Job) -> Mapping[str, bool]:
    """Return of each of these jobs that exists whether it is in the tree of a job."""
    parameters = {"ids": list(ids), "account_id": root.account_id, "root_id": root.root_id or root.id}
    return {row["id"]: row["is_member"] for row in fetch_all(connection, MEMBERS, parameters)}


#: Levels below the job that are read.
LEVELS = 32


@dataclass(frozen=True, slots=True)
class TreeJob:
    """A job of a tree, and of a turn its response, its agent and its tokens."""

    job: Job
    response_id: str | None
    agent: str | None
    usage: Mapping[str, Any] | None


def list_tree(
    connection: Connection, job_id: str, access: Access, *, after: str | None = None, limit: int = 100
) -> list[TreeJob]:
    """Return a job and those below it by their ids, after the id `after`. The caller has read the job."""
    parameters = {"id": job_id, "levels": LEVELS, "after": after, "limit": limit, **access.parameters}
    rows = fetch_all(connection, TREE, parameters)
    return [_tree_job(row) for row in rows]


def _tree_job(row: dict[str, Any]) -> TreeJob:
    response_id, agent, usage = (row.pop(f"tree_{name}") for name in ("response_id", "agent", "usage"))
    return TreeJob(Job(**row), response_id, agent, usage)
