"""Call the platform's own tools.

Memories need an embedder, which other pools have: child jobs write and search them.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from models.accounts import files
from models.accounts.files import FileAccess
from models.jobs import jobs
from models.jobs.attempt_context import Attempt, WaitForChildren
from models.jobs.jobs import Job, NewJob
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents import run_python, web_fetch
from pipelines.agents.call_results import CallResult, error_result
from pipelines.agents.platform_tool_definitions import MAX_CHARACTERS, MAX_HITS, MAX_PROGRAM
from pipelines.files.texts import MAX_TEXT_BYTES, read_text
from pipelines.files.unreadable import UnreadableFile
from pipelines.memory.memory_input import MAX_TEXT_LENGTH, MemoryInput
from pipelines.memory.recall import Query

#: Hits of a search that names no limit, and files of a list that names none.
DEFAULT_HITS, DEFAULT_FILES = 8, 20

NO_MEMORY = "This turn has no memory: its request or API key says so."


def run(
    settings: Settings,
    objects: ObjectStore,
    attempt: Attempt,
    response: Response,
    name: str,
    arguments: Mapping[str, Any],
) -> CallResult | WaitForChildren:
    """Call a tool that the turn may call. Raises the reason to stop."""
    try:
        match name:
            case "memory_search":
                return _memory_search(attempt, response, arguments)
            case "memory_write":
                return _memory_write(attempt, response, arguments)
            case "list_files":
                return _list_files(attempt, response, arguments)
            case "read_file":
                return _read_file(objects, attempt, response, arguments)
            case "web_fetch":
                return web_fetch.run(settings, attempt, _text(arguments, "url", 2_048))
            case "run_python":
                return run_python.run(settings, attempt, _text(arguments, "code", MAX_PROGRAM))
    except ValueError as error:
        return error_result(str(error))
    raise LookupError(name)


def _memory_search(attempt: Attempt, response: Response, arguments: Mapping[str, Any]) -> CallResult | WaitForChildren:
    query = Query(_text(arguments, "query", 2_000), _number(arguments, "limit", DEFAULT_HITS, 1, MAX_HITS))
    return _memory_job(attempt, response, "recall", "memory.search", asdict(query))


def _memory_write(attempt: Attempt, response: Response, arguments: Mapping[str, Any]) -> CallResult | WaitForChildren:
    memory = MemoryInput(text=_text(arguments, "text", MAX_TEXT_LENGTH))
    now = datetime.now(UTC)
    created = {"ids": [new_id("mem")], "now": now.isoformat(), "memories": [memory.to_job_arguments()]}
    return _memory_job(attempt, response, "remember", "memory.create", created)


def _memory_job(
    attempt: Attempt, response: Response, option: str, kind: str, arguments: Mapping[str, Any]
) -> CallResult | WaitForChildren:
    """Return the result of the child that an earlier attempt has begun, or begin it."""
    key = SpaceKey.of_turn(response)
    if key is None or (response.request.get("memory") or {}).get(option) is False:
        return error_result(NO_MEMORY)
    with attempt.database.connection() as connection:
        children = jobs.children(connection, attempt.job.id)
    if children:
        return _memory_result(children[-1])
    unique_key = f"tool_memory:{attempt.job.id}"
    job = NewJob(kind, key.account_id, {**key.arguments, **arguments}, owner_id=key.user_id, unique_key=unique_key)
    return WaitForChildren([job])


def _memory_result(child: Job) -> CallResult:
    if child.state != "completed" or child.result is None:
        message = (
            "The memories are not available: the search failed."
            if child.kind == "memory.search"
            else ("The memory could not be written.")
        )
        return error_result(message)
    if child.kind == "memory.create":
        return CallResult(output="Remembered.")
    lines = [_hit_line(hit) for hit in child.result["hits"]]
    return CallResult(output="\n".join(lines) or "No memory matches.")


def _hit_line(hit: Mapping[str, Any]) -> str:
    text = hit["passage"]["text"] if hit.get("passage") else hit["text"]
    speaker = f"{hit['speaker']}: " if hit.get("speaker") else ""
    return f"- [{hit['occurred_at'][:10]}] {speaker}{text}"


def _list_files(attempt: Attempt, response: Response, arguments: Mapping[str, Any]) -> CallResult:
    limit = _number(arguments, "limit", DEFAULT_FILES, 1, 100)
    with attempt.database.connection() as connection:
        found = files.page(connection, _file_access(response), limit=limit)
    lines = [f"- {file.id}: {file.filename}, {file.bytes:,} bytes, {file.content_type}" for file in found]
    return CallResult(output="\n".join(lines) or "There are no files.")


def _file_access(response: Response) -> FileAccess:
    """Return what a turn reads: the files of its user and of all members, never those of admins."""
    return FileAccess(response.account_id, response.user_id, admin=False)


def _read_file(objects: ObjectStore, attempt: Attempt, response: Response, arguments: Mapping[str, Any]) -> CallResult:
    file_id = _text(arguments, "file_id", 64)
    with attempt.database.connection() as connection:
        file = files.read(connection, file_id, _file_access(response))
    if file is None:
        return error_result(f"There is no file {file_id}.")
    try:
        text = read_text(objects, file, attempt.check, MAX_TEXT_BYTES)
    except UnreadableFile as error:
        return error_result(f"The file cannot be read: {error}.")
    start = _number(arguments, "offset", 0, 0, len(text))
    end = start + _number(arguments, "length", MAX_CHARACTERS, 1, MAX_CHARACTERS)
    more = f"\n[{len(text) - end:,} more characters: read on with the offset {end}]" if end < len(text) else ""
    return CallResult(output=text[start:end] + more)


def _text(arguments: Mapping[str, Any], name: str, limit: int) -> str:
    """Return a text of the arguments. Raises ValueError."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise ValueError(f"'{name}' should be a text of 1 to {limit:,} characters.")
    return value.replace("\0", "")


def _number(arguments: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """Return an integer of the arguments. Raises ValueError."""
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"'{name}' should be an integer from {least} to {most:,}.")
    return value
