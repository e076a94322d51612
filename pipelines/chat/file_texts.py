"""Put the texts of files into a prompt.

A file's content never changes, so every attempt, and every later turn, gets the same text. Nothing of it is stored with
the turn: once the file is deleted, a turn that still needs it fails, and later turns of the conversation get a note.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.accounts import files
from models.accounts.files import File, FileAccess
from models.jobs.attempt_context import Attempt
from models.platform.errors import PermanentFailure
from models.platform.object_store import ObjectStore
from pipelines.chat.input_files import PART, file_parts
from pipelines.files.names import detect_type
from pipelines.files.texts import read_text, text_of
from pipelines.files.unreadable import UnreadableFile
from pipelines.requests.file_parts import HEAD, content_of

#: Characters of the files of a conversation; older files than these are left out. No context has so many.
MAX_CHARACTERS = 4_000_000

#: Characters of texts that a process caches: a turn that calls tools reads its prompt several times.
MAX_CACHED = 8_000_000

Part = Mapping[str, Any]
Item = Mapping[str, Any]


class FileTexts:
    """The texts of files, the latest of which are cached. Thread-safe."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._cache = _TextCache()

    def expand(self, attempt: Attempt, items: Sequence[Item], own: int) -> Sequence[Item]:
        """Return the items of a prompt, with texts in place of files. The last `own` items are those of the turn.

        The input of a delegated turn is the conversation of the delegating one, so none of its files is its own.

        Raises PermanentFailure if a file of the turn itself was deleted or has no text, Unavailable, and the reason to
        stop.
        """
        parts = list(file_parts(items))
        if not parts:
            return items
        prompt = _PromptFiles(self, attempt, _read_files(attempt, parts))
        first_own = len(items) - (0 if attempt.job.parent_id else own)
        expanded = [
            prompt.expand(item, is_own=index >= first_own) for index, item in reversed([*enumerate(items)])
        ]  # the latest first, which always fit
        return expanded[::-1]

    def text_of_file(self, file: File, check: Callable[[], None]) -> str:
        """Return the text of a file. Raises as `read_text` does."""
        return self._cache.get(file.id, lambda: read_text(self._objects, file, check))

    def text_of_data(self, file_data: str, filename: str, check: Callable[[], None]) -> str:
        """Return the text of a content that a request had. Raises UnreadableFile, and what `check` raises."""
        content = content_of(file_data)
        content_type = detect_type(content[:HEAD], filename)
        key = hashlib.sha256(content_type.encode() + b"\0" + content).hexdigest()
        return self._cache.get(key, lambda: text_of(content, content_type, check))


class _PromptFiles:
    """The files of one prompt, and how many characters of them it may still have."""

    def __init__(self, texts: FileTexts, attempt: Attempt, found: Mapping[str, File]) -> None:
        self._texts, self._attempt, self._found = texts, attempt, found
        self._left = MAX_CHARACTERS

    def expand(self, item: Item, *, is_own: bool) -> Item:
        """Return a message with the texts of its files in front, so that it ends with the question."""
        if item["type"] != "message" or not any(part.get("type") == PART for part in item["content"]):
            return item
        in_front = [self._text(part, is_own=is_own) for part in item["content"] if part.get("type") == PART]
        others = [part for part in item["content"] if part.get("type") != PART]
        return {**item, "content": [*({"type": "input_text", "text": text} for text in in_front), *others]}

    def _text(self, part: Part, *, is_own: bool) -> str:
        name = part.get("filename") or "file"
        try:
            text = self._read(part, name)
        except UnreadableFile as error:
            if is_own:
                raise PermanentFailure(f"The file '{name}' cannot be read: {error}.", code="unreadable_file") from None
            return f"[The file {name} is missing: {error}.]\n"
        self._left -= len(text)
        return f'<file name="{name.replace(chr(34), chr(39))}">\n{text}\n</file>\n'

    def _read(self, part: Part, name: str) -> str:
        """Return the text of a part. Raises UnreadableFile."""
        self._attempt.check()
        if "file_id" not in part:
            text = self._texts.text_of_data(part["file_data"], name, self._attempt.check)
        elif (file := self._found.get(part["file_id"])) is not None:
            text = self._texts.text_of_file(file, self._attempt.check)
        else:
            raise UnreadableFile(f"{part['file_id']} was deleted or has expired")
        if len(text) > self._left:
            raise UnreadableFile(f"the files of a prompt have at most {MAX_CHARACTERS:,} characters")
        return text


def _read_files(attempt: Attempt, parts: Sequence[Part]) -> Mapping[str, File]:
    """Return the files of the account that still exist. Who may read them was checked when the turn was accepted."""
    ids = {part["file_id"] for part in parts if "file_id" in part}
    if not ids:
        return {}
    with attempt.database.connection() as connection:
        return files.read_several(connection, sorted(ids), FileAccess(attempt.job.account_id, None, admin=True))


class _TextCache:
    """The latest texts by key, at most MAX_CACHED characters of them."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def get(self, key: str, read: Callable[[], str]) -> str:
        """Return the text of this key, which `read` returns if it is not cached."""
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        text = read()
        with self._lock:
            self._size += len(text) - len(self._texts.pop(key, ""))
            self._texts[key] = text
            while self._size > MAX_CACHED:
                self._size -= len(self._texts.popitem(last=False)[1])
        return text
