"""`sangha backup` and `sangha restore` of the embedded default."""

import tarfile
from contextlib import closing

import psycopg
import pytest

from models.accounts.owned_objects import database_id
from models.platform.database import Database
from models.platform.errors import ConfigurationError
from models.platform.ids import new_id
from models.platform.migrate import migrate
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.platform.store_owner import owner_of
from ops import backup as backups
from ops.backup import backup
from ops.embedded_servers import Postgres, running_server
from ops.restore import UNFINISHED, restore

SECRET = "a secret of thirty-two characters"
KEY = "acct_1/files/one"


@pytest.fixture
def settings_of(tmp_path, monkeypatch):
    """`settings_of(name)` → the settings of an installation in a folder of its own."""
    monkeypatch.delenv("SANGHA_SECRET_KEY", raising=False)
    return lambda name: Settings.model_validate({"data_dir": tmp_path / name})


@pytest.fixture
def installation(settings_of, tmp_path):
    """The settings of an installation with an account, a file and a secret key, whose Postgres runs."""
    settings = settings_of("one")
    server = Postgres(settings.home / "postgres", settings.socket_dir)
    for name in ("run", "logs"):
        (settings.home / name).mkdir(parents=True, exist_ok=True)
    with running_server(server, settings.home / "run", settings.home / "logs"):
        migrate(server.dsn)
        with psycopg.connect(server.dsn) as connection:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a backup')", (new_id("acct"),))
        ObjectStore.open(settings).put(KEY, [b"content"])
        (settings.home / "secret_key").write_text(SECRET)
        yield settings


def names_of_accounts(settings):
    """Run Postgres in a data folder, and read the names of its accounts and the id of the database."""
    server = Postgres(settings.home / "postgres", settings.socket_dir)
    with (
        running_server(server, settings.home, settings.home),
        closing(Database(server.dsn, size=1)) as database,
        database.connection() as connection,
    ):
        rows = connection.execute("SELECT name FROM accounts WHERE id <> 'platform'").fetchall()
        return [row["name"] for row in rows], database_id(connection)


def test_a_restored_installation_has_rows_files_and_secret_key(installation, settings_of, tmp_path):
    # Given a backup of an installation that runs
    archive = tmp_path / "backup.tar"
    backup(installation, archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    # When it is restored into another folder
    other = settings_of("two")
    restore(other, archive)
    # Then that has everything, and its database owns the objects
    names, database = names_of_accounts(other)
    objects = ObjectStore.open(other)
    assert names == ["a backup"]
    assert b"".join(objects.get(KEY)) == b"content"
    assert owner_of(objects) == database
    assert (other.home / "secret_key").read_text() == SECRET
    assert not (other.home / UNFINISHED).exists()


def test_an_object_that_is_deleted_during_the_dump_is_in_the_backup(installation, settings_of, tmp_path, monkeypatch):
    # Given an object whose row is in the dump, and which is deleted meanwhile
    dump = backups.dump_database

    def dump_and_delete(*arguments):
        dump(*arguments)
        ObjectStore.open(installation).delete([KEY])

    monkeypatch.setattr(backups, "dump_database", dump_and_delete)
    # When the backup is restored
    backup(installation, tmp_path / "backup.tar")
    restore(settings_of("two"), tmp_path / "backup.tar")
    # Then it is there
    assert b"".join(ObjectStore.open(settings_of("two")).get(KEY)) == b"content"


def test_a_restore_that_was_interrupted_is_repeated(installation, settings_of, tmp_path, monkeypatch):
    # Given a restore that has ended before its parts were moved into their places
    archive, other = tmp_path / "backup.tar", settings_of("two")
    backup(installation, archive)
    with monkeypatch.context() as interrupted:
        interrupted.setattr("ops.restore.move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore(other, archive)
    assert not (other.home / "postgres").exists()
    # When it is repeated, it succeeds
    restore(other, archive)
    assert names_of_accounts(other)[0] == ["a backup"]


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_nothing_is_overwritten(installation, tmp_path):
    archive = tmp_path / "backup.tar"
    archive.write_text("another file")
    with pytest.raises(ConfigurationError, match="exists already"):
        backup(installation, archive)
    assert archive.read_text() == "another file"
    archive.unlink()
    backup(installation, archive)
    with pytest.raises(ConfigurationError, match="choose an empty folder"):
        restore(installation, archive)


def test_a_damaged_archive_is_refused(installation, settings_of, tmp_path):
    # Given a backup of which one byte of the dump has changed
    archive = tmp_path / "backup.tar"
    backup(installation, archive)
    with tarfile.open(archive) as opened:
        offset = opened.getmember(backups.DUMP).offset_data
    content = bytearray(archive.read_bytes())
    content[offset + 100] ^= 1
    archive.write_bytes(content)
    # When it is restored, it is refused, and the folder is empty
    with pytest.raises(ConfigurationError, match="is damaged"):
        restore(settings_of("two"), archive)
    assert not (settings_of("two").home / "postgres").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10_240])
def test_another_file_is_refused(settings_of, tmp_path, content):
    (tmp_path / "other.tar").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"other\.tar"):
        restore(settings_of("two"), tmp_path / "other.tar")


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"database_url": "postgresql://db/sangha"}, "SANGHA_DATABASE_URL"),
        ({"object_store": "s3://bucket"}, "BJECT_STORE"),
    ],
)
def test_servers_of_ones_own_have_tools_of_their_own(settings_of, tmp_path, changes, variable):
    settings = settings_of("one").model_copy(update=changes)

    for command in (backup, restore):
        with pytest.raises(ConfigurationError, match=variable):
            command(settings, tmp_path / "backup.tar")


def test_an_installation_without_a_database_has_nothing_to_back_up(settings_of, tmp_path):
    settings = settings_of("none")
    settings.home.mkdir()

    with pytest.raises(ConfigurationError, match="nothing to back up"):
        backup(settings, tmp_path / "backup.tar")
