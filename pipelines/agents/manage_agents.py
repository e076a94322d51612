"""Create, change and delete agents of an account. Each change of the definition makes a new version."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from psycopg.errors import UniqueViolation

from models.accounts import audit
from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.agents import agents
from models.agents.agents import Agent
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, LimitExceeded, NotAllowed, NotFound, TooLarge
from models.platform.texts import truncate

#: Agents of an account, and bytes of a definition.
MAX_AGENTS, MAX_DEFINITION = 500, 262_144


def create(
    database: Database,
    caller: Caller,
    origin: RequestOrigin,
    agent_id: str,
    name: str,
    definition: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Agent:
    """Create an agent, or return the one that the same request has created.

    Raises Conflict if the name is taken, InvalidRequest for an agent that does not exist, and LimitExceeded.
    """
    _check_size(definition)
    try:
        with database.transaction() as connection:
            _check_agents(connection, caller.account_id, name, definition)
            if len(agents.names(connection, caller.account_id)) >= MAX_AGENTS:
                raise LimitExceeded(f"The account has {MAX_AGENTS} agents, the most that it may have.")
            agents.insert(
                connection,
                agent_id=agent_id,
                account_id=caller.account_id,
                name=name,
                definition=definition,
                metadata=metadata,
                user_id=caller.user_id,
            )
            _record(connection, "agent.created", caller, origin, agent_id, name)
    except UniqueViolation:
        with database.connection() as connection:
            if (existing := agents.read(connection, agent_id, caller.account_id)) is not None:
                return existing
        raise _name_taken(name) from None
    return find(database, caller, agent_id)


def find(database: Database, caller: Caller, agent_id: str) -> Agent:
    """Return an agent of the caller's account. Raises NotFound."""
    with database.connection() as connection:
        agent = agents.read(connection, agent_id, caller.account_id)
    if agent is None:
        raise _not_found(agent_id)
    return agent


def change(
    database: Database,
    caller: Caller,
    origin: RequestOrigin,
    agent_id: str,
    *,
    name: str | None,
    definition: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    expected_version: int | None,
) -> Agent:
    """Change an agent: `definition` has the fields that change. Turns that run keep their version.

    Raises NotFound, NotAllowed, and Conflict if the agent has another version than the expected one.
    """
    try:
        with database.transaction() as connection:
            agent = _lock(connection, caller, agent_id)
            if expected_version not in (None, agent.version):
                message = f"The agent has version {agent.version}, and not {expected_version}: read it again."
                raise Conflict(message, param="expected_version", code="version_conflict")
            new_definition = {**agent.definition, **definition}
            is_new_version = new_definition != agent.definition
            _check_size(new_definition)
            _check_agents(connection, caller.account_id, name or agent.name, definition)
            changed = replace(
                agent,
                name=name or agent.name,
                metadata=dict(agent.metadata if metadata is None else metadata),
                definition=new_definition,
                version=agent.version + is_new_version,
            )
            agents.update(connection, changed, caller.user_id, is_new_version=is_new_version)
            _record(connection, "agent.changed", caller, origin, agent_id, changed.name)
    except UniqueViolation:
        raise _name_taken(str(name)) from None
    return find(database, caller, agent_id)


def delete(database: Database, caller: Caller, origin: RequestOrigin, agent_id: str) -> None:
    """Delete an agent. Raises NotFound and NotAllowed."""
    with database.transaction() as connection:
        agent = _lock(connection, caller, agent_id)
        agents.delete(connection, agent_id)
        _record(connection, "agent.deleted", caller, origin, agent_id, agent.name)


def _lock(connection: Connection, caller: Caller, agent_id: str) -> Agent:
    """Return and lock an agent that the caller may change: their own, for an admin any."""
    agent = agents.lock(connection, agent_id, caller.account_id)
    if agent is None:
        raise _not_found(agent_id)
    if agent.created_by != caller.user_id and not caller.role.covers(Role.ADMIN):
        raise NotAllowed("Only the agent's creator and admins of the account can change it.")
    return agent


def _check_size(definition: Mapping[str, Any]) -> None:
    size = len(orjson.dumps(definition))
    if size > MAX_DEFINITION:
        raise TooLarge(f"The agent's definition has {size:,} bytes; it may have {MAX_DEFINITION:,}.")


def _check_agents(connection: Connection, account_id: str, name: str, definition: Mapping[str, Any]) -> None:
    """Check that the agents to delegate to exist, each once. An agent may name itself: the limit of depth ends that."""
    if not (others := definition.get("agents")):
        return
    known, named = {*agents.names(connection, account_id), name}, set()
    for number, agent in enumerate(others):
        if agent["name"] not in known:
            raise InvalidRequest(f"The agent '{truncate(agent['name'])}' does not exist.", param=f"agents[{number}]")
        if agent["name"] in named:
            raise InvalidRequest(f"The agent '{agent['name']}' is named twice.", param=f"agents[{number}]")
        named.add(agent["name"])


def _record(
    connection: Connection, action: str, caller: Caller, origin: RequestOrigin, agent_id: str, name: str
) -> None:
    audit.record(
        connection, action, origin, account_id=caller.account_id, user_id=caller.user_id,
        target=agent_id, details={"name": name},
    )  # fmt: skip


def _name_taken(name: str) -> Conflict:
    return Conflict(f"The account has an agent '{truncate(name)}' already.", param="name", code="name_taken")


def _not_found(agent_id: str) -> NotFound:
    return NotFound(f"Agent with id '{truncate(agent_id)}' not found.")
