"""The record of an agent and its versions. A turn keeps the version that it began with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.platform.database import Connection, fetch_one
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
