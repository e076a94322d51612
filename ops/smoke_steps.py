"""The steps of `sangha smoke`. Each returns a description of what it saw, or raises StepFailed."""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from ops.smoke_client import SmokeClient, StepFailed

DELTA = "response.output_text.delta"
FINAL_EVENTS = ("response.completed", "response.incomplete")

#: A turn may end by its limit of tokens, too.
FINAL_STATUSES = ("completed", "incomplete")

#: Seconds between two reads of a background turn.
POLL = 0.2

PROMPT = "Count from one to ten, in words."
LONG_PROMPT = "Write a long story about a lighthouse."

#: Bytes of a file that goes up and down.
FILE_SIZE = 256 * 1024


def ready(client: SmokeClient) -> str:
    """Wait until the installation can serve requests."""
    client.call("GET", "/readyz")
    return "serves requests"


def sign_up(client: SmokeClient) -> str:
    """Create a user with an account of their own."""
    client.email = f"{client.space}@example.com"
    body = {"email": client.email, "password": secrets.token_urlsafe(24)}
    client.authenticate(client.call("POST", "/signup", json=body, expect=201).json()["token"])
    return client.email


def use_key(key: str) -> Callable[[SmokeClient], str]:
    """Return the step that checks an API key."""

    def api_key(client: SmokeClient) -> str:
        client.authenticate(key)
        count = len(client.call("GET", "/v1/models").json()["data"])
        return f"reads {count} models"

    return api_key


def streamed_turn(client: SmokeClient) -> str:
    """Disconnect from a turn's stream in the middle, resume it, and compare the text with the response."""
    body = _turn(client, PROMPT, max_output_tokens=48) | {"stream": True}
    start = time.monotonic()
    first = _until_delta(client, client.events("POST", "/v1/responses", json=body))
    first_token = time.monotonic() - start
    path, last = f"/v1/responses/{client.response_ids[-1]}", first[-1]["sequence_number"]
    rest = list(client.events("GET", f"{path}?stream=true&starting_after={last}"))
    _check_sequence(first + rest)
    _check_text(client.call("GET", path).json(), first + rest)
    return f"first token after {first_token:.2f} s, resumed after event {last} of {rest[-1]['sequence_number']}"


def background_turn(client: SmokeClient) -> str:
    """Start a turn in the background, and read it until it has ended."""
    response = _start_in_background(client, PROMPT, max_output_tokens=16)
    while response["status"] in ("queued", "in_progress"):
        time.sleep(min(POLL, client.remaining()))
        response = client.call("GET", f"/v1/responses/{response['id']}").json()
    if response["status"] not in FINAL_STATUSES:
        raise StepFailed(f"{response['id']} is {response['status']}: {response.get('error')}")
    return f"{response['status']} with {response['usage']['output_tokens']} tokens"


def memory(client: SmokeClient) -> str:
    """Write a memory, and find it by its meaning."""
    text = f"The lighthouse keeper's dog is called {secrets.token_hex(4)}."
    client.call("POST", "/v1/memories", json={"space": client.space, "text": text}, expect=201)
    query = {"space": client.space, "query": "What is the name of the keeper's dog?", "limit": 3}
    hits = client.call("POST", "/v1/memories/search", json=query).json()["data"]
    if text not in [hit["text"] for hit in hits]:
        raise StepFailed(f"the memory is not among {len(hits)} hits")
    return "written and recalled"


def file(client: SmokeClient) -> str:
    """Upload a file, and compare what is downloaded."""
    content = secrets.token_bytes(FILE_SIZE)
    form = {"file": ("smoke.bin", content, "application/octet-stream")}
    created = client.call("POST", "/v1/files", data={"purpose": "user_data"}, files=form).json()
    client.file_ids.append(created["id"])
    # A presigned URL of the object store is followed without the credentials.
    path = f"/v1/files/{created['id']}/content"
    if client.call("GET", path, follow_redirects=True).content != content:
        raise StepFailed("the downloaded file differs from the uploaded one")
    return f"{FILE_SIZE // 1024} KiB up and down"


def cancel(client: SmokeClient) -> str:
    """Cancel a turn. One that was faster than the request stays completed."""
    response = _start_in_background(client, LONG_PROMPT, max_output_tokens=512)
    status: str = client.call("POST", f"/v1/responses/{response['id']}/cancel").json()["status"]
    if status not in ("cancelled", *FINAL_STATUSES):
        raise StepFailed(f"{response['id']} is {status} after the cancel")
    return status


def missing_credentials(client: SmokeClient) -> str:
    """Expect the error envelope for a request with invalid credentials."""
    invalid = {"authorization": "Bearer sk-invalid"}
    return _error_code(client.call("GET", "/v1/models", headers=invalid, expect=401).json())


def missing_response(client: SmokeClient) -> str:
    """Expect the error envelope for a response that does not exist."""
    return _error_code(client.call("GET", "/v1/responses/resp_missing", expect=404).json())


def clean_up(client: SmokeClient) -> str:
    """Delete the responses, files and memories of this run."""
    for response_id in client.response_ids:
        _wait_for_end(client, response_id)
        client.call("DELETE", f"/v1/responses/{response_id}")
    for file_id in client.file_ids:
        client.call("DELETE", f"/v1/files/{file_id}")
    client.call("DELETE", f"/v1/memories?all=true&space={client.space}")
    return f"deleted {len(client.response_ids)} responses, {len(client.file_ids)} files and the memories"


def erase_user(client: SmokeClient) -> str:
    """Erase the user that signed up, with their account."""
    client.call("DELETE", "/v1/me", params={"confirm": client.email}, expect=202)
    return client.email


#: In this order; the access comes after the first.
STEPS: tuple[Callable[[SmokeClient], str], ...] = (
    ready, streamed_turn, background_turn, memory, file, cancel, missing_credentials, missing_response,
)  # fmt: skip
#: Where a key was used, whose user remains.
CLEANUP: tuple[Callable[[SmokeClient], str], ...] = (clean_up,)


def _turn(client: SmokeClient, prompt: str, *, max_output_tokens: int) -> dict[str, Any]:
    """Return the body of a turn that uses no memories and leaves none."""
    return {
        "model": client.model,
        "input": prompt,
        "max_output_tokens": max_output_tokens,
        "memory": {"space": client.space, "recall": False, "remember": False},
    }


def _start_in_background(client: SmokeClient, prompt: str, *, max_output_tokens: int) -> dict[str, Any]:
    body = _turn(client, prompt, max_output_tokens=max_output_tokens) | {"background": True}
    response: dict[str, Any] = client.call("POST", "/v1/responses", json=body).json()
    client.response_ids.append(response["id"])
    return response


def _until_delta(client: SmokeClient, events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read events up to the first one with text, then disconnect."""
    received = []
    for event in events:
        received.append(event)
        if event["type"] == "response.created":
            client.response_ids.append(event["response"]["id"])
        if event["type"] in (DELTA, "response.failed", "error"):
            break
    events.close()  # type: ignore[attr-defined]
    if not received or received[-1]["type"] != DELTA:
        raise StepFailed(f"the stream has no text: {[event['type'] for event in received]}")
    return received


def _check_sequence(events: list[dict[str, Any]]) -> None:
    """Check that no event is repeated. Numbers of events that only extensions ask for are left out of the stream."""
    numbers = [event["sequence_number"] for event in events]
    if numbers != sorted(set(numbers)):
        raise StepFailed(f"events are repeated after the stream was resumed: {numbers}")
    if events[-1]["type"] not in FINAL_EVENTS:
        raise StepFailed(f"the stream ends with {events[-1]['type']}")


def _check_text(response: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Compare the text of the stream with that of the response."""
    streamed = "".join(event["delta"] for event in events if event["type"] == DELTA)
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    if streamed != "".join(part.get("text", "") for part in parts):
        raise StepFailed("the text of the stream differs from the response's")


def _wait_for_end(client: SmokeClient, response_id: str) -> None:
    while client.call("GET", f"/v1/responses/{response_id}").json()["status"] in ("queued", "in_progress"):
        time.sleep(min(POLL, client.remaining()))


def _error_code(body: dict[str, Any]) -> str:
    error = body["error"]
    if error.keys() != {"message", "type", "param", "code"}:
        raise StepFailed(f"the error has the fields {sorted(error)}")
    return str(error["code"] or error["type"])
