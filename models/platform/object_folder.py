"""Put an object into a folder so that it is complete or absent, also after the machine has lost its power.

    write beside the others under a name that is no key → fsync → rename, or link if it must be new → fsync the folder

A process that is killed leaves a file whose name begins with PARTIAL; `delete_partial` removes old ones.
"""

import os
import shutil
import time
import uuid
from pathlib import Path, PurePosixPath
from typing import BinaryIO

#: What the names of unfinished files begin with. No key has a part that begins so.
PARTIAL = ".partial-"

#: Bytes that are copied at a time.
CHUNK = 1024 * 1024

#: Seconds after which an unfinished file is one of a process that has died.
ABANDONED = 24 * 3600


def check_key(key: str) -> None:
    """Raise ValueError for a key that leads out of its folder, names no file, or has special characters."""
    parts = PurePosixPath(key).parts
    invalid = not parts or key.startswith("/") or any(part == ".." or part.startswith(PARTIAL) for part in parts)
    if invalid or not key.isprintable() or "\\" in key:
        raise ValueError(f"{key!r} is not the key of an object")


def put(folder: Path, key: str, file: BinaryIO, *, new: bool = False) -> int:
    """Store a file, and return its size. Raises OSError; FileExistsError if it must be `new` and is not."""
    check_key(key)
    path = folder / key
    _make_folders(folder, path.parent)
    partial = path.parent / f"{PARTIAL}{uuid.uuid4().hex}"
    try:
        size = _write(partial, file)
        if new:
            os.link(partial, path)
            partial.unlink()
        else:
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return size


def delete_partial(folder: Path, *, older_than: float = ABANDONED) -> int:
    """Delete what killed processes have left. Returns the number of files."""
    abandoned = [path for path in folder.rglob(f"{PARTIAL}*") if _age(path) > older_than]
    for path in abandoned:
        path.unlink(missing_ok=True)
    return len(abandoned)


def _write(path: Path, file: BinaryIO) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as target:
        shutil.copyfileobj(file, target, CHUNK)
        target.flush()
        os.fsync(target.fileno())
        return target.tell()


def _make_folders(folder: Path, parent: Path) -> None:
    """Create the folders of an object. Each new one is synced into its parent."""
    missing = []
    while parent != folder and not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
