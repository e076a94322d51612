"""The servers of the tests: real ones, started once per session in a temporary folder.

`SANGHA_TEST_BROKER_URL` names a RabbitMQ to use instead of a private node. Without RabbitMQ, tests that need it fail
instead of being skipped. With `--pooler` the databases of the tests are opened through PgBouncer.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from models.platform.log_levels import OWN_LOGGERS
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.embedded_servers import Postgres, Valkey, running_server
from ops.rabbitmq import RabbitMQ
from tests.databases import migrate_beyond, new_database, open_database
from tests.mailbox import Mailbox
from tests.pgbouncer import PgBouncer
from tests.s3 import S3Service, moto, nanio

# No deadline for an example: its duration varies on a busy machine.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--pooler`."""
    parser.addoption("--pooler", action="store_true", help="Open all databases through PgBouncer in transaction mode.")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the session's servers."""
    folder = tmp_path_factory.mktemp("sangha")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres(home: Path) -> Iterator[Postgres]:
    """A running Postgres with the current schema, and the columns of a newer version, in the database `sangha`."""
    server = Postgres(home / "postgres", Settings(data_dir=home).socket_dir)
    with running_server(server, home / "run", home / "logs"):
        migrate_beyond(server.dsn)
        yield server


@pytest.fixture(scope="session")
def pgbouncer(home: Path, postgres: Postgres) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode, with two connections to each database of `postgres`."""
    server = PgBouncer(home / "pgbouncer", postgres, size=2)
    with running_server(server, home / "run", home / "logs"):
        yield server


@pytest.fixture(autouse=True)
def log_levels() -> None:
    """Log as Python does by default, whatever level a command of an earlier test has set in this process."""
    logging.getLogger().setLevel(logging.WARNING)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def pooler(request: pytest.FixtureRequest, home: Path, postgres: Postgres) -> Iterator[PgBouncer | None]:
    """With the option `--pooler`: the PgBouncer through which all databases are opened."""
    if not request.config.getoption("--pooler"):
        yield None
        return
    server = PgBouncer(home / "pooler", postgres, size=8)  # as many as a `Database`: tests let transactions wait
    with running_server(server, home / "run", home / "logs"):
        yield server


@pytest.fixture(scope="session")
def valkey(home: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    server = Valkey(home / "valkey", Settings(data_dir=home).socket_dir)
    with running_server(server, home / "run", home / "logs"):
        yield server


@pytest.fixture(scope="session")
def rabbitmq_url(home: Path) -> Iterator[str]:
    """The URL of a running RabbitMQ."""
    if url := os.environ.get("SANGHA_TEST_BROKER_URL"):
        yield url
        return
    server = RabbitMQ(home / "rabbitmq")
    with running_server(server, home / "run", home / "logs"):
        yield server.url


@pytest.fixture(scope="session")
def settings(home: Path, postgres: Postgres, valkey: Valkey) -> Settings:
    """Settings of a process on the session's servers, with the scripted engine."""
    # All tests send their requests from one address.
    return Settings(data_dir=home, engine="scripted", secret_key="a secret of the tests", visits_per_minute=1_000_000)


@pytest.fixture(params=["redis", "rabbitmq"])
def on_each_broker(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The settings with each broker in turn."""
    if request.param == "redis":
        return settings
    return settings.model_copy(update={"broker_url": request.getfixturevalue("rabbitmq_url")})


@pytest.fixture(scope="session")
def database(postgres: Postgres, pooler: PgBouncer | None) -> Iterator[Database]:
    """The session's database, which tests share: each uses accounts of its own."""
    database = open_database(postgres.dsn, pooler)
    yield database
    database.close()


@pytest.fixture
def empty_database(postgres: Postgres, pooler: PgBouncer | None) -> Iterator[Database]:
    """An empty database with the current schema, for one test."""
    with new_database(postgres, pgbouncer=pooler) as database:
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
def events_of(database: Database) -> Callable[[str], list[tuple[str, dict[str, Any]]]]:
    """`events_of(account_id)` → the type and data of each event of the account, in order."""

    def events_of(account_id: str) -> list[tuple[str, dict[str, Any]]]:
        statement = "SELECT event_type, data FROM account_events WHERE account_id = %s ORDER BY id"
        with database.connection() as connection:
            return [(row["event_type"], row["data"]) for row in fetch_all(connection, statement, (account_id,))]

    return events_of


@pytest.fixture
def mailbox(settings: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Mailbox]:
    """Delivers queued e-mails."""
    mailbox = Mailbox(settings, database, redis_client)
    yield mailbox
    mailbox.writer.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    """An S3 service that checks signatures."""
    with nanio(tmp_path_factory.mktemp("s3") / "objects") as service:
        yield service


@pytest.fixture(scope="session")
def conditional_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    """An S3 service that keeps the conditions of writes, and attributes of objects. It accepts any signature."""
    with moto(tmp_path_factory.mktemp("s3") / "moto") as service:
        yield service
