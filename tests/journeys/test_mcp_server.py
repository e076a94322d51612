"""Sangha as an MCP server over real processes, as the official SDK's client and plain requests use it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

pytestmark = ON_REDIS

#: Both eras of the protocol.
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])

TASKS = "io.modelcontextprotocol/tasks"


@pytest.fixture
def turns(stack: Installation) -> Iterator[Installation]:
    """Workers whose engine answers at once; for the input "slowly" it stops at the fifth token."""
    stack.start_worker("tokens=20,rate=0,hang_at=5,trigger=slowly", "inference")
    stack.start_worker("", "memory", "recall")
    return stack


@pytest.fixture
def key(turns: Installation, user: AccountOwner) -> str:
    return create_key(user, "inference", "read", "write")


def create_key(user: AccountOwner, *scopes: str) -> str:
    """Create an API key; returns its secret."""
    created = user.request("POST", "/v1/api_keys", json={"name": "mcp", "scopes": scopes, "memory": "owner"})
    assert created.status_code == 201, created.text
    return str(created.json()["key"])


@asynccontextmanager
async def connected(stack: Installation, key: str, mode: str, **options: Any) -> AsyncIterator[Client]:
    """Connect the SDK's client with an API key."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{stack.addresses()[0]}/mcp", http_client=http)
        async with Client(transport, mode=mode, **options) as client:
            yield client


def post(stack: Installation, key: str, message: Any, address: int = 0, **headers: str) -> httpx.Response:
    """Send a message of revision 2025-11-25."""
    accepted = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    sent = {"authorization": f"Bearer {key}", **accepted, **headers}
    return httpx.post(f"{stack.addresses()[address]}/mcp", json=message, headers=sent, timeout=60)


def call(name: str, arguments: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Return the message that calls a tool."""
    params = {"name": name, "arguments": arguments, **params}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def message_of(response: httpx.Response) -> dict[str, Any]:
    """Return the last message of a response, JSON or an event stream."""
    if response.headers["content-type"].startswith("application/json"):
        return response.json()
    data = [line for line in response.text.splitlines() if line.startswith("data: ")]
    return httpx.Response(200, content=data[-1].removeprefix("data: ")).json()


@MODES
def test_the_sdks_client_asks_with_progress_and_reads_the_answer_again(
    turns: Installation, user: AccountOwner, key: str, mode: str
):
    progress: list[tuple[float, str | None]] = []

    async def on_progress(number: float, total: float | None, message: str | None) -> None:
        progress.append((number, message))

    async def use() -> tuple[list[str], Any, Any]:
        async with connected(turns, key, mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            answer = await client.call_tool("ask", {"text": "hello"}, progress_callback=on_progress)
            read = {"action": "read", "id": answer.structured_content["response_id"]}
            return tools, answer, await client.call_tool("jobs", read)

    # When
    tools, answer, read = asyncio.run(use())

    # Then
    assert tools == ["ask", "memory_search", "memory_write", "jobs"]
    stored = user.get(f"/v1/responses/{answer.structured_content['response_id']}")
    text = stored["output"][0]["content"][0]["text"]
    assert (answer.content[0].text, answer.structured_content["text"], answer.is_error) == (text, text, False)
    assert answer.structured_content["usage"]["output_tokens"] == stored["usage"]["output_tokens"] == 20
    assert read.structured_content["answer"] == answer.structured_content
    numbers = [number for number, _ in progress]
    assert numbers
    assert numbers == sorted(set(numbers))
    assert all(message.startswith(stored["id"]) for _, message in progress)


@MODES
def test_a_memory_that_is_written_is_found(turns: Installation, key: str, mode: str):
    async def use() -> tuple[Any, Any, Any]:
        async with connected(turns, key, mode) as client:
            arguments = {"text": "The cat is called Mia.", "idempotency_key": "cat"}
            first = await client.call_tool("memory_write", arguments)
            again = await client.call_tool("memory_write", arguments)
            return first, again, await client.call_tool("memory_search", {"query": "name of the cat", "limit": 5})

    first, again, found = asyncio.run(use())

    assert first.structured_content["status"] == "written"
    assert again.structured_content == first.structured_content
    (memory,) = found.structured_content["memories"]
    assert (memory["id"], memory["text"]) == (first.structured_content["memory_id"], "The cat is called Mia.")


def test_the_answer_survives_the_web_process_that_was_asked(turns: Installation, user: AccountOwner, key: str):
    """The client's process is killed between the call and its result; the client reads the answer at another one."""
    web = turns.children["web-a"]
    with httpx.Client(timeout=60) as client:
        headers = {"authorization": f"Bearer {key}", "accept": "application/json, text/event-stream"}
        message = call("ask", {"text": "slowly", "idempotency_key": "once"}, _meta={"progressToken": 1})
        with client.stream("POST", f"{turns.addresses()[0]}/mcp", json=message, headers=headers) as response:
            lines = response.iter_lines()
            progress = next(line for line in lines if "notifications/progress" in line)
            response_id = progress.partition('"message":"')[2].partition(":")[0]

            # When
            web.kill()
            turns.kill_workers()

    # Then
    turns.start_worker("tokens=20,rate=0", "inference")
    user.wait_for_end(response_id)
    read = message_of(post(turns, key, call("jobs", {"action": "read", "id": response_id})))["result"]
    assert read["structuredContent"]["answer"]["status"] == "completed"
    repeated = message_of(post(turns, key, call("ask", {"text": "slowly", "idempotency_key": "once"})))["result"]
    assert repeated["structuredContent"] == read["structuredContent"]["answer"]


def test_a_client_that_disconnects_does_not_lose_the_answer(turns: Installation, user: AccountOwner, key: str):
    # Given
    headers = {"authorization": f"Bearer {key}", "accept": "application/json, text/event-stream"}
    message = call("ask", {"text": "slowly"})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{turns.addresses()[0]}/mcp", json=message, headers=headers, timeout=1)
    (job,) = user.get("/v1/jobs?kind=turn.run")["data"]

    # When
    turns.kill_workers()
    turns.start_worker("tokens=20,rate=0", "inference")

    # Then
    wait_until(lambda: user.get(f"/v1/jobs/{job['id']}")["state"] == "completed", 30, what="the end of the turn")


def test_the_cancellation_of_a_request_cancels_its_turn(turns: Installation, user: AccountOwner, key: str):
    """The SDK's client of the revisions with a handshake cancels by a notification, to any web process."""

    async def use() -> None:
        async with connected(turns, key, "legacy") as client:
            asked = asyncio.create_task(client.call_tool("ask", {"text": "slowly"}))
            while not (await asyncio.to_thread(running)):
                await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.to_thread(wait_until, cancelled, 30, what="the cancellation")

    def running() -> bool:
        return [job["state"] for job in user.get("/v1/jobs?kind=turn.run")["data"]] == ["running"]

    def cancelled() -> bool:
        return [job["state"] for job in user.get("/v1/jobs?kind=turn.run")["data"]] == ["cancelled"]

    asyncio.run(use())


def test_a_task_of_revision_2025_11_25_is_polled_cancelled_and_read(turns: Installation, key: str):
    def request(method: str, task_id: str) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": 8, "method": method, "params": {"taskId": task_id}}
        return message_of(post(turns, key, message))

    # When
    created = message_of(post(turns, key, call("ask", {"text": "hello"}, task={"ttl": 60000})))["result"]["task"]
    result = request("tasks/result", created["taskId"])["result"]
    slow = message_of(post(turns, key, call("ask", {"text": "slowly"}, task={})))["result"]["task"]
    working = request("tasks/get", slow["taskId"])["result"]
    request("tasks/cancel", slow["taskId"])

    # Then
    assert created["status"] == working["status"] == "working"
    assert request("tasks/get", created["taskId"])["result"]["status"] == "completed"
    assert result["structuredContent"]["response_id"] == created["taskId"]
    assert result["_meta"]["io.modelcontextprotocol/related-task"] == {"taskId": created["taskId"]}
    wait_until(
        lambda: request("tasks/get", slow["taskId"])["result"]["status"] == "cancelled", 30, what="the cancellation"
    )
    assert request("tasks/get", "resp_unknown")["error"]["code"] == -32602


def modern(method: str, extensions: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Return a message of revision 2026-07-28 of a client with these extensions."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": extensions},
    }
    return {"jsonrpc": "2.0", "id": 9, "method": method, "params": {**params, "_meta": meta}}


def post_modern(stack: Installation, key: str, message: dict[str, Any]) -> httpx.Response:
    params = message["params"]
    name = params.get("name") or params.get("taskId")
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": message["method"], "mcp-name": name}
    return post(stack, key, message, **headers)


def test_a_long_answer_becomes_a_task_of_revision_2026_07_28(turns: Installation, user: AccountOwner, key: str):
    knows = {TASKS: {}}
    arguments = {"name": "ask", "arguments": {"text": "slowly"}}

    # When
    created = message_of(post_modern(turns, key, modern("tools/call", knows, **arguments)))["result"]
    task_id = created["taskId"]
    working = message_of(post_modern(turns, key, modern("tasks/get", knows, taskId=task_id)))["result"]
    refused = post_modern(turns, key, modern("tasks/get", {}, taskId=task_id))
    turns.kill_workers()
    turns.start_worker("tokens=20,rate=0", "inference")
    user.wait_for_end(task_id)
    ended = message_of(post_modern(turns, key, modern("tasks/get", knows, taskId=task_id)))["result"]
    cancelled = message_of(post_modern(turns, key, modern("tasks/cancel", knows, taskId=task_id)))["result"]

    # Then
    assert (created["resultType"], created["status"], created["ttlMs"]) == ("task", "working", None)
    assert (working["resultType"], working["status"]) == ("complete", "working")
    assert message_of(refused)["error"]["code"] == -32021
    assert (ended["status"], ended["result"]["structuredContent"]["response_id"]) == ("completed", task_id)
    assert cancelled["resultType"] == "complete"
    assert "taskId" not in cancelled
