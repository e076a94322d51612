"""Calls of tools of every type as items of a conversation."""

from openai.types.responses import ResponseItemList
from pydantic import TypeAdapter

from tests.web.api_client import assert_error

CALLS = [
    {"type": "function_call", "call_id": "c0", "name": "look", "namespace": "crm", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c0", "output": [{"type": "input_text", "text": "a cat"}]},
    {"type": "custom_tool_call", "call_id": "c1", "name": "note", "input": "x", "id": "ctc_1", "status": "completed"},
    {"type": "custom_tool_call_output", "call_id": "c1", "output": "noted"},
    {"type": "local_shell_call", "call_id": "c2", "id": "lsh_1", "status": "completed",
     "action": {"type": "exec", "command": ["ls"], "env": {}}},
    {"type": "local_shell_call_output", "id": "lsh_1", "output": "a.txt"},
    {"type": "shell_call", "call_id": "c3", "action": {"commands": ["ls"]}, "status": "completed"},
    {"type": "shell_call_output", "call_id": "c3",
     "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
    {"type": "apply_patch_call", "call_id": "c4", "status": "completed",
     "operation": {"type": "delete_file", "path": "a.txt"}},
    {"type": "apply_patch_call_output", "call_id": "c4", "status": "failed", "output": "no such file"},
]  # fmt: skip


def test_calls_and_outputs_of_every_type_are_items_of_a_conversation(user):
    conversation = user.request("POST", "/v1/conversations", json={"items": CALLS}).json()["id"]

    items = user.request("GET", f"/v1/conversations/{conversation}/items?order=asc").json()

    assert [item["type"] for item in items["data"]] == [call["type"] for call in CALLS]
    TypeAdapter(ResponseItemList).validate_python(items)
    assert items["data"][5]["call_id"] == "c2", "the id was that of the call's item"
    assert items["data"][9]["status"] == "failed"


def test_an_item_of_an_unknown_type_is_rejected(user):
    body = {"input": [{"type": "from_the_future", "text": "important"}]}

    assert_error(user.request("POST", "/v1/responses", json=body), 400, param="input[0].type")
