"""The record of an agent and its versions. A turn keeps the version that it began with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Json, Jsonb

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class Agent:
    """A row of `agents` with the definition of one of its versions."""

    id: str
    account_id: str
    name: str
    version: int
    metadata: dict[str, Any]
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    definition: dict[str, Any]


COLUMNS = columns(Agent, "agents", omit=("definition",))

SELECT = f"""
SELECT {COLUMNS}, definition FROM agents
JOIN agent_versions ON agent_id = agents.id AND agent_versions.version = agents.version
"""

BY_NAME = f"{SELECT} WHERE account_id = %(account_id)s AND name = %(name)s AND deleted_at IS NULL"


def named(connection: Connection, account_id: str, name: str) -> Agent | None:
    """Return the current version of an agent of the account."""
    row = fetch_one(connection, BY_NAME, {"account_id": account_id, "name": name})
    return Agent(**row) if row else None


VERSION = """
SELECT definition FROM agent_versions JOIN agents ON agents.id = agent_id
WHERE agent_id = %(id)s AND agent_versions.version = %(version)s AND account_id = %(account_id)s
"""


def read_version(connection: Connection, account_id: str, agent_id: str, version: int) -> Mapping[str, Any] | None:
    """Return the definition of a version, also of a deleted agent, whose turns may still run."""
    parameters = {"id": agent_id, "version": version, "account_id": account_id}
    row = fetch_one(connection, VERSION, parameters)
    return row["definition"] if row else None


BY_ID = f"{SELECT} WHERE agents.id = %(id)s AND account_id = %(account_id)s AND deleted_at IS NULL"


def read(connection: Connection, agent_id: str, account_id: str) -> Agent | None:
    """Return the current version of an agent of the account."""
    row = fetch_one(connection, BY_ID, {"id": agent_id, "account_id": account_id})
    return Agent(**row) if row else None


OF_VERSION = """
SELECT agents.id, account_id, name, agent_versions.version, metadata, agent_versions.created_by, agents.created_at,
       agent_versions.created_at AS updated_at, deleted_at, definition
FROM agents JOIN agent_versions ON agent_id = agents.id
WHERE agents.id = %(id)s AND account_id = %(account_id)s AND deleted_at IS NULL
  AND agent_versions.version < %(before)s
ORDER BY agent_versions.version DESC LIMIT %(limit)s
"""

#: Above the number of every version.
NEWEST = 2**31 - 1


def list_versions(
    connection: Connection, agent_id: str, account_id: str, *, before: int = NEWEST, limit: int = 20
) -> list[Agent]:
    """Return versions of an agent, newest first, below the number `before`."""
    parameters = {"id": agent_id, "account_id": account_id, "before": before, "limit": limit}
    return [Agent(**row) for row in fetch_all(connection, OF_VERSION, parameters)]


LIST = f"""
{SELECT}
WHERE account_id = %(account_id)s AND deleted_at IS NULL AND (%(after)s::text IS NULL OR agents.id < %(after)s)
ORDER BY agents.id DESC LIMIT %(limit)s
"""


def list_agents(connection: Connection, account_id: str, *, after: str | None = None, limit: int = 20) -> list[Agent]:
    """Return agents of the account, newest first, older than the agent `after`."""
    parameters = {"account_id": account_id, "after": after, "limit": limit}
    return [Agent(**row) for row in fetch_all(connection, LIST, parameters)]


NAMES = "SELECT name, created_at FROM agents WHERE account_id = %(account_id)s AND deleted_at IS NULL ORDER BY name"


def names(connection: Connection, account_id: str) -> dict[str, datetime]:
    """Return the names of the account's agents, with the times when they were created."""
    return {row["name"]: row["created_at"] for row in fetch_all(connection, NAMES, {"account_id": account_id})}


INSERT = """
INSERT INTO agents (id, account_id, name, version, metadata, created_by)
VALUES (%(id)s, %(account_id)s, %(name)s, 1, %(metadata)s, %(user_id)s)
"""

INSERT_VERSION = """
INSERT INTO agent_versions (agent_id, version, definition, created_by)
VALUES (%(id)s, %(version)s, %(definition)s, %(user_id)s)
"""


def insert(
    connection: Connection,
    *,
    agent_id: str,
    account_id: str,
    name: str,
    definition: Mapping[str, Any],
    metadata: Mapping[str, Any],
    user_id: str | None,
) -> None:
    """Insert an agent with its first version. Raises UniqueViolation if the name or the id is taken."""
    parameters = {"id": agent_id, "account_id": account_id, "name": name, "metadata": Jsonb(metadata)}
    connection.execute(INSERT, {**parameters, "user_id": user_id})
    version = {"id": agent_id, "version": 1, "definition": Json(definition), "user_id": user_id}
    connection.execute(INSERT_VERSION, version)


LOCK = f"{BY_ID} FOR NO KEY UPDATE OF agents"


def lock(connection: Connection, agent_id: str, account_id: str) -> Agent | None:
    """Return the current version of an agent, and lock the agent until the transaction ends."""
    row = fetch_one(connection, LOCK, {"id": agent_id, "account_id": account_id})
    return Agent(**row) if row else None


UPDATE = """
UPDATE agents SET name = %(name)s, version = %(version)s, metadata = %(metadata)s, updated_at = now()
WHERE id = %(id)s
"""


def update(connection: Connection, agent: Agent, user_id: str | None, *, is_new_version: bool) -> None:
    """Store the changes of a locked agent. Raises UniqueViolation if the name is taken."""
    parameters = {"id": agent.id, "name": agent.name, "version": agent.version, "metadata": Jsonb(agent.metadata)}
    connection.execute(UPDATE, parameters)
    if is_new_version:
        version = {"id": agent.id, "version": agent.version, "definition": Json(agent.definition), "user_id": user_id}
        connection.execute(INSERT_VERSION, version)


DELETE = "UPDATE agents SET deleted_at = now() WHERE id = %(id)s"


def delete(connection: Connection, agent_id: str) -> None:
    """Delete a locked agent. Its versions are kept for turns that run."""
    connection.execute(DELETE, {"id": agent_id})


#: Days for which the versions of a deleted agent are kept.
KEPT_DAYS = 30

PRUNE = """
DELETE FROM agents WHERE id IN (
    SELECT id FROM agents WHERE deleted_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of agents that were deleted KEPT_DAYS ago. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount
