"""`sangha restore`: make a data folder of an archive of `sangha backup`.

Everything is prepared in a folder beside the data, and moved into its place at the end, the database last. So a restore
that was interrupted is repeated, and a data folder never has one half of a backup.
"""

import json
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg.rows import dict_row

from models.accounts.owned_objects import database_id
from models.platform.errors import ConfigurationError
from models.platform.migrate import migrate
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.platform.store_owner import replace_mark
from ops.backup import (
    DUMP,
    FORMAT,
    MANIFEST,
    OBJECTS,
    SECRET_KEY,
    check_embedded,
    digest_of,
    objects_folder,
    run_postgres_program,
)
from ops.embedded_servers import Postgres, running_server
from ops.preflight import data_folder_lock

#: The folder in the data folder in which the restore is prepared.
UNFINISHED = "restore.unfinished"

COUNTS = """
SELECT (SELECT count(*) FROM accounts WHERE id <> 'platform') AS accounts,
       (SELECT count(*) FROM responses) AS responses, (SELECT count(*) FROM memories) AS memories,
       (SELECT count(*) FROM files) AS files
"""


def restore(settings: Settings, source: Path) -> None:
    """Restore an archive into an empty data folder. Raises ConfigurationError, Unavailable and OSError."""
    check_embedded(settings)
    with data_folder_lock(settings.home):
        check_empty(settings)
        work = settings.home / UNFINISHED
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        manifest = extract(source, work)
        click.echo(f"Read a backup of {manifest['created_at']} by Sangha {manifest['version']}")
        counts = restore_database(settings, work)
        move(settings, work)
    click.echo(", ".join(f"{count:,} {name}" for name, count in counts.items()))
    click.echo(f"Restored to {settings.home}. Start it with `sangha up`; unfinished jobs continue.")


def check_empty(settings: Settings) -> None:
    """Raise ConfigurationError if the data folder has data."""
    objects = objects_folder(settings)
    for path in (settings.home / "postgres", settings.home / SECRET_KEY, objects):
        if path.exists() and (path.is_file() or any(path.iterdir())):
            raise ConfigurationError(f"{path} exists already: choose an empty folder with --data-dir")


def extract(source: Path, work: Path) -> Mapping[str, Any]:
    """Extract an archive; returns its manifest. Raises ConfigurationError for another file, and for a damaged one."""
    try:
        with tarfile.open(source, mode="r:") as archive:
            archive.extractall(work, filter="data")
        manifest: Mapping[str, Any] = json.loads((work / MANIFEST).read_bytes())
        digest = digest_of(work / DUMP)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{source} is no backup, or does not exist: {error.filename} is missing") from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ConfigurationError(f"{source} cannot be read: {error}") from None
    if manifest.get("format", 0) > FORMAT:
        raise ConfigurationError(f"{source} was written by Sangha {manifest['version']}: restore it with that version")
    if digest != manifest["dump_sha256"]:
        raise ConfigurationError(f"{source} is damaged: the digest of {DUMP} differs")
    return manifest


def restore_database(settings: Settings, work: Path) -> Mapping[str, int]:
    """Restore and migrate the database, and make it the owner of the objects. Returns how many rows it has."""
    server = Postgres(work / "postgres", settings.socket_dir)
    for folder in (work / "run", work / "logs"):
        folder.mkdir(mode=0o700)
    with running_server(server, work / "run", work / "logs"):
        run_postgres_program(
            "pg_restore", ["--no-owner", "--exit-on-error", f"--dbname={server.dsn}", str(work / DUMP)]
        )
        migrate(server.dsn)
        with closing(psycopg.connect(server.dsn, row_factory=dict_row)) as connection:
            claim_objects(settings, connection, work / OBJECTS)
            counts = connection.execute(COUNTS).fetchone()
    assert counts is not None
    return counts


def claim_objects(settings: Settings, connection: Any, objects: Path) -> None:
    """Mark the objects as those of the restored database."""
    objects.mkdir(exist_ok=True, mode=0o700)
    store = ObjectStore.open(settings.model_copy(update={"object_store": str(objects)}))
    replace_mark(store, database_id(connection))


def move(settings: Settings, work: Path) -> None:
    """Move all parts to their places, the database last."""
    objects = objects_folder(settings)
    objects.parent.mkdir(parents=True, exist_ok=True)
    if objects.exists():
        objects.rmdir()  # it is empty
    shutil.move(work / OBJECTS, objects)
    if (work / SECRET_KEY).exists() and not settings.secret_key:
        (work / SECRET_KEY).rename(settings.home / SECRET_KEY)
    (work / "postgres").rename(settings.home / "postgres")
    shutil.rmtree(work)
