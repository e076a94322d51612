"""Store objects as files in a folder.

An object is written to a temporary file, which is synchronised to the disk and then renamed, so that no reader finds
an incomplete one. Files have the mode 0600, folders 0700. A process that crashes leaves its temporary file, which
`delete_unfinished` deletes.
"""

import errno
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path

from models.platform.errors import NotFound
from models.platform.object_errors import ObjectExists, folder_error
from models.platform.stored_objects import CHUNK, DELETED, ObjectInfo, OpenObject

#: The prefix of the names of temporary files. No segment of a key begins with a dot.
TEMPORARY = ".writing-"

#: Attempts to create a file while deletes of other objects remove its folder.
CREATE_TRIES = 20


class FolderObjects:
    """The objects of a folder. Thread-safe, also among processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def put(self, key: str, chunks: Iterator[bytes], *, only_if_absent: bool = False) -> None:
        """Write an object. Raises ObjectExists, Unavailable, and what the iterator raises."""
        path = self.folder / key
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        with self._disk_errors():
            descriptor = self._create(temporary)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    self._write(file, chunk)
                with self._disk_errors():
                    os.fsync(descriptor)
            self._publish(temporary, path, only_if_absent)
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _create(self, path: Path) -> int:
        """Create a file and its folders, which a concurrent delete may have removed. Returns the file's descriptor."""
        for _ in range(CREATE_TRIES):
            self._make_parents(path)
            with suppress(FileNotFoundError):
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        raise OSError(errno.EBUSY, "other processes keep deleting it")

    def _make_parents(self, path: Path) -> None:
        """Create missing folders, and synchronise each one's parent to the disk."""
        missing = [parent for parent in path.parents if not parent.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError, FileNotFoundError):
                folder.mkdir(mode=0o700)
                _synchronise(folder.parent)

    def _write(self, file: RawIOBase, chunk: bytes) -> None:
        view = memoryview(chunk)
        with self._disk_errors():
            while view:
                view = view[file.write(view) or 0 :]

    def _publish(self, temporary: Path, path: Path, only_if_absent: bool) -> None:
        with self._disk_errors():
            try:
                (os.link if only_if_absent else os.replace)(temporary, path)
            except FileExistsError:
                raise ObjectExists(path.name) from None
            _synchronise(path.parent)

    def open(self, key: str, offset: int, length: int | None) -> OpenObject:
        """Open an object for reading. Raises NotFound and Unavailable."""
        with self._errors():
            descriptor = os.open(self.folder / key, os.O_RDONLY | os.O_NOFOLLOW)
        size = os.fstat(descriptor).st_size
        end = size if length is None else min(offset + length, size)
        return OpenObject(size, self._read(descriptor, offset, end))

    def _read(self, descriptor: int, position: int, end: int) -> Iterator[bytes]:
        with os.fdopen(descriptor, "rb", buffering=0) as file, self._errors():
            file.seek(position)
            while position < end and (chunk := file.read(min(CHUNK, end - position))):
                position += len(chunk)
                yield chunk

    def head(self, key: str) -> ObjectInfo:
        """Return size and time of an object. Raises NotFound and Unavailable."""
        with self._errors():
            return _info(key, (self.folder / key).lstat())

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and the folders that become empty. Missing ones are ignored. Raises Unavailable."""
        for key in keys:
            with suppress(NotFound), self._errors():
                (self.folder / key).unlink()
            self._remove_empty_folders(self.folder / key)

    def _remove_empty_folders(self, path: Path) -> None:
        """Remove the folders above a path that are empty. A concurrent writer creates its folder again."""
        for parent in path.parents:
            if parent == self.folder or not parent.is_relative_to(self.folder):
                return
            try:
                parent.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return

    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Return the objects below a prefix, behind a key, in the order of their keys. Raises Unavailable."""
        with self._errors():
            yield from self._walk(prefix.strip("/"), after)

    def _walk(self, folder: str, after: str) -> Iterator[ObjectInfo]:
        try:
            entries = list(os.scandir(self.folder / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder sorts by its name and a slash, as the keys of its objects do.
        keyed = [(f"{folder}/{entry.name}".lstrip("/") + "/" * entry.is_dir(), entry) for entry in entries]
        for key, entry in sorted(keyed, key=lambda pair: pair[0]):
            if entry.is_dir(follow_symlinks=False):
                if not after or key > after or after.startswith(key):
                    yield from self._walk(key.rstrip("/"), after)
            elif key > after and entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat(follow_symlinks=False))

    def delete_unfinished(self, seconds: float) -> int:
        """Delete temporary files of crashed writers that are older than so many seconds. Returns how many."""
        deleted = 0
        with self._errors():
            for path in self.folder.rglob(f"{TEMPORARY}*"):
                with suppress(FileNotFoundError):
                    if path.lstat().st_mtime < time.time() - seconds:
                        path.unlink()
                        deleted += 1
        return deleted

    def presign(self, key: str, seconds: int, filename: str, content_type: str) -> None:
        """Return None: a folder has no URLs."""

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Convert errors of a write to ObjectStoreUnavailable."""
        try:
            yield
        except OSError as error:
            raise folder_error(error, self.folder) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of an access to an object to NotFound and ObjectStoreUnavailable."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(DELETED) from None
        except OSError as error:
            raise folder_error(error, self.folder) from error


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _synchronise(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a renamed file has its name also after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
