"""`sangha backup`: write database, files and secret key of the embedded default into one archive.

The archive is a tar with `manifest.json` first, then `database.dump` (pg_dump's custom format), `secret_key`, and the
objects under `objects/`. It is made while everything runs: the dump is one snapshot of the database, and the objects
are hard links that are made before and after it, so that all objects of the snapshot's rows are among them.
"""

import hashlib
import json
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from models.platform.errors import ConfigurationError, Unavailable
from models.platform.folder_objects import TEMPORARY
from models.platform.settings import Settings
from ops.child_process import launcher_command
from ops.embedded_servers import Postgres, postgres_binary, running_server
from ops.preflight import data_folder_lock
from ops.version import version

#: The format of the archive. One with a higher number cannot be restored.
FORMAT = 1

MANIFEST, DUMP, SECRET_KEY, OBJECTS = "manifest.json", "database.dump", "secret_key", "objects"

#: Bytes that are hashed at a time.
CHUNK = 1 << 20


def backup(settings: Settings, target: Path) -> None:
    """Write the archive. Raises ConfigurationError for servers of your own, Unavailable, and OSError."""
    check_embedded(settings)
    if target.exists():
        raise ConfigurationError(f"{target} exists already: choose another name, or delete it")
    with (
        tempfile.TemporaryDirectory(prefix=".backup-", dir=settings.home) as work,
        running_postgres(settings) as server,
    ):
        links = Path(work) / OBJECTS
        link_objects(objects_folder(settings), links)
        dump = Path(work) / DUMP
        dump_database(server, dump)
        click.echo(f"Dumped the database: {megabytes(dump.stat().st_size)}")
        count, size = link_objects(objects_folder(settings), links)
        manifest = {
            "format": FORMAT,
            "version": version(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "dump_sha256": digest_of(dump),
            "objects": count,
        }
        write_archive(settings, target, manifest, dump, links)
        click.echo(f"Added {count:,} objects of files: {megabytes(size)}")
    click.echo(
        f"Wrote {target} ({megabytes(target.stat().st_size)}). It contains secrets: keep it as you keep passwords."
    )
    if settings.secret_key:
        click.echo("SANGHA_SECRET_KEY is not in it: keep that apart.")


def check_embedded(settings: Settings) -> None:
    """Raise ConfigurationError unless database and files are in the data folder."""
    if settings.database_url:
        raise ConfigurationError(
            "SANGHA_DATABASE_URL is set: use that server's tools, as docs/guides/backup.md describes"
        )
    if (settings.object_store or "").startswith("s3://"):
        raise ConfigurationError(
            "SANGHA_OBJECT_STORE is a bucket: use its versions or copies, as docs/guides/backup.md describes"
        )


def objects_folder(settings: Settings) -> Path:
    """Return the folder of the objects."""
    return Path(settings.object_store or settings.home / "objects").expanduser().absolute()


@contextmanager
def running_postgres(settings: Settings) -> Iterator[Postgres]:
    """Use the Postgres of a running `sangha up`, or run it until the end of the block. Raises ConfigurationError."""
    server = Postgres(settings.home / "postgres", settings.socket_dir)
    if not server.folder.exists():
        raise ConfigurationError(f"{settings.home} has no database: nothing to back up")
    if server.ready(0):
        yield server
        return
    with data_folder_lock(settings.home):
        run_folder, log_folder = settings.home / "run", settings.home / "logs"
        for folder in (run_folder, log_folder):
            folder.mkdir(exist_ok=True, mode=0o700)
        with running_server(server, run_folder, log_folder):
            yield server


def dump_database(server: Postgres, target: Path) -> None:
    """Dump the database into a file. Raises Unavailable with the first line of pg_dump's error."""
    run_postgres_program("pg_dump", ["--format=custom", "--no-owner", f"--file={target}", server.dsn])


def run_postgres_program(program: str, arguments: list[str]) -> None:
    """Run a program of the embedded Postgres as a client. Raises Unavailable with the first line of its error."""
    command = launcher_command([str(postgres_binary(program)), *arguments], signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unavailable(f"{program} failed: {lines[0]}")


def link_objects(source: Path, target: Path) -> tuple[int, int]:
    """Make a hard link to each object that has none yet. Returns the number and the bytes of all links."""
    count = size = 0
    for folder, _, names in os.walk(source):
        links = target / Path(folder).relative_to(source)
        links.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not name.startswith(TEMPORARY):
                with suppress(FileExistsError, FileNotFoundError):  # deleted meanwhile
                    os.link(Path(folder) / name, links / name)
    for folder, _, names in os.walk(target):
        count += len(names)
        size += sum((Path(folder) / name).stat().st_size for name in names)
    return count, size


def write_archive(settings: Settings, target: Path, manifest: Mapping[str, Any], dump: Path, objects: Path) -> None:
    """Write the archive under another name and rename it, so that no incomplete one has its name."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                add_bytes(archive, MANIFEST, json.dumps(manifest, indent=2).encode())
                archive.add(dump, DUMP)
                if not settings.secret_key and (key := settings.home / SECRET_KEY).exists():
                    archive.add(key, SECRET_KEY)
                if objects.exists():
                    archive.add(objects, OBJECTS)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file with this content."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(datetime.now(UTC).timestamp())
    archive.addfile(entry, BytesIO(content))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1_000_000:,.1f} MB"
