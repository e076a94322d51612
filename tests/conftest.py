"""The servers that the tests run on: real ones, started once a session, in a folder of their own.

`SANGHA_TEST_BROKER_URL` names a RabbitMQ to use in place of the machine's own; where there is neither, tests that need
one fail rather than skip.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.migrate import migrate
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.rabbitmq import RabbitMQ
from ops.servers import Postgres, Valkey, running_server
from tests.databases import new_database
from tests.mailbox import Mailbox

# Machines are noisy: how long an example takes says nothing.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the session's servers."""
    folder = tmp_path_factory.mktemp("sangha")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres(home: Path) -> Iterator[Postgres]:
    """A running Postgres with the present schema in the database `sangha`."""
    part = Postgres(home / "postgres", Settings(data_dir=home).socket_dir)
    with running_server(part, home / "run", home / "logs"):
        migrate(part.dsn)
        yield part


@pytest.fixture(scope="session")
def valkey(home: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    part = Valkey(home / "valkey", Settings(data_dir=home).socket_dir)
    with running_server(part, home / "run", home / "logs"):
        yield part


@pytest.fixture(scope="session")
def rabbitmq_url(home: Path) -> Iterator[str]:
    """Where a RabbitMQ answers."""
    if given := os.environ.get("SANGHA_TEST_BROKER_URL"):
        yield given
        return
    part = RabbitMQ(home / "rabbitmq")
    with running_server(part, home / "run", home / "logs"):
        yield part.url


@pytest.fixture(scope="session")
def settings(home: Path, postgres: Postgres, valkey: Valkey) -> Settings:
    """Settings of a process on the session's servers, with the scripted engine."""
    # All tests visit from one address.
    return Settings(data_dir=home, engine="scripted", secret_key="a secret of the tests", visits_per_minute=1_000_000)


@pytest.fixture(params=["redis", "rabbitmq"])
def on_each_broker(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The settings with each broker in turn."""
    if request.param == "redis":
        return settings
    return settings.model_copy(update={"broker_url": request.getfixturevalue("rabbitmq_url")})


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> Iterator[Database]:
    """The session's database, shared: a test keeps to accounts of its own."""
    database = Database(postgres.dsn)
    yield database
    database.close()


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[Database]:
    """A database of the test's own, with the present schema and nothing in it."""
    with new_database(postgres) as database:
        yield database


@pytest.fixture
def redis_client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client of the session's Valkey."""
    client = connect(valkey.url)
    yield client
    client.close()


@pytest.fixture
def account(database: Database) -> str:
    """The id of a new account."""
    account_id = new_id("acct")
    with database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
    return account_id


@pytest.fixture
def mailbox(settings: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Mailbox]:
    """Delivers queued e-mails."""
    mailbox = Mailbox(settings, database, redis_client)
    yield mailbox
    mailbox.writer.stop()
