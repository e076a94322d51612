"""A new account has the example agent, which does not keep the account from being pruned."""

import pytest

from models.accounts import unverified_users
from models.agents import agents
from models.platform.ids import new_id
from pipelines.accounts import new_account
from pipelines.agents import definitions, example_agent
from pipelines.chat.client_tools import client_tools
from web.api.agents.schemas import CreateAgent


@pytest.fixture
def membership(empty_database):
    """A user who signed up two months ago, and has not verified the address."""
    with empty_database.transaction() as connection:
        membership = new_account.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        connection.execute("UPDATE users SET created_at = now() - interval '2 months'")
    return membership


def prune(database):
    with database.transaction() as connection:
        return unverified_users.prune(connection, 10)


def test_the_example_agent_belongs_to_the_user_and_parses(empty_database, membership):
    with empty_database.connection() as connection:
        agent = agents.named(connection, membership.account_id, "assistant")

    assert agent is not None
    assert (agent.version, agent.created_by) == (1, membership.user_id)
    definition = definitions.parse(agent.definition)
    assert "Sangha" in (definition.instructions or "")
    assert client_tools(definition.tools) == []


def test_the_example_agent_could_be_created_by_a_request():
    CreateAgent.model_validate({"name": example_agent.NAME, **example_agent.DEFINITION})


def test_an_account_with_the_unchanged_example_is_pruned(empty_database, membership):
    assert prune(empty_database) == 1


def test_an_account_with_a_changed_example_is_kept(empty_database, membership):
    with empty_database.transaction() as connection:
        agent = agents.named(connection, membership.account_id, "assistant")
        agents.update(connection, agent, membership.user_id, is_new_version=False)

    assert prune(empty_database) == 0
