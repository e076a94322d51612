"""Input items: messages, calls and their outputs, decisions on approvals, and references to earlier items.

Types that a text model cannot read, such as images, are rejected; of files it reads the text. Output items of a
response are accepted unchanged.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag
from pydantic_core import PydanticCustomError

from pipelines.chat.compaction import is_of_this_server
from pipelines.requests.call_types import (
    CALLS_AND_OUTPUTS,
    Call,
    CallOrOutput,
    CallOutput,
    LocalShellCallOutput,
    stored_call,
)
from pipelines.requests.content_types import MAX_ITEMS, AuthorName, Content, ContentPart, Id, ItemStatus, Refusal
from pipelines.requests.file_parts import InputFile, stored_file
from pipelines.requests.ignored_parts import IgnoredPart
from pipelines.requests.mcp_types import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpItem,
    McpListTools,
    stored_mcp_item,
)
from pipelines.requests.validation import RequestBody, branch, discriminate_by_type, discriminate_text


def _reject_foreign_compaction(content: str) -> str:
    """Reject a compaction of another server. Whether it was changed is found where it is read, off the event loop."""
    if not is_of_this_server(content):
        raise PydanticCustomError("compaction", "is not of this server")
    return content


class InputMessage(RequestBody):
    """A message. Messages of an earlier output can be sent unchanged."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    name: AuthorName = None
    id: str | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class ReasoningText(RequestBody):
    """A part of reasoning, or of its summary."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(RequestBody):
    """Reasoning of an earlier output, for the rest of its turn. Encrypted reasoning of other servers is ignored."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[ReasoningText], Field(max_length=MAX_ITEMS)] | None = None
    content: Annotated[list[ReasoningText], Field(max_length=MAX_ITEMS)] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class Compaction(RequestBody):
    """A compaction by this server, which replaces the items before it."""

    type: Literal["compaction"]
    encrypted_content: Annotated[str, AfterValidator(_reject_foreign_compaction)]
    id: str | None = None
    created_by: str | None = None


class ItemReference(RequestBody):
    """A reference to an item of the account by its id."""

    type: Literal["item_reference"] | None = None
    id: Id


#: Calls of tools that another server ran, in outputs of its responses.
HOSTED_CALLS = (
    "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "tool_search_call",
    "tool_search_output",
)  # fmt: skip

#: Items of calls that this server ran, of requests for their approval, and of decisions on these.
MCP_ITEMS = ("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response")

ITEM_TYPES = ("message", *CALLS_AND_OUTPUTS, *MCP_ITEMS, "reasoning", "compaction", "item_reference")


class HostedCall(IgnoredPart):
    """A call that another server ran. It is ignored, so that outputs can be sent unchanged."""

    supported = ITEM_TYPES

    type: Literal[HOSTED_CALLS]  # type: ignore[valid-type]


def _infer_type(value: Mapping[str, Any]) -> str:
    return "item_reference" if value.keys() <= {"id", "type"} and value else "message"


Item = Annotated[
    Annotated[InputMessage, Tag(branch("message"))]
    | Annotated[CallOrOutput, Tag(branch("call"))]
    | Annotated[McpListTools, Tag(branch("mcp_list_tools"))]
    | Annotated[McpCall, Tag(branch("mcp_call"))]
    | Annotated[McpApprovalRequest, Tag(branch("mcp_approval_request"))]
    | Annotated[McpApprovalResponse, Tag(branch("mcp_approval_response"))]
    | Annotated[ReasoningItem, Tag(branch("reasoning"))]
    | Annotated[Compaction, Tag(branch("compaction"))]
    | Annotated[ItemReference, Tag(branch("item_reference"))]
    | Annotated[HostedCall, Tag(branch("hosted"))],
    discriminate_by_type(
        *ITEM_TYPES,
        infer_type=_infer_type,
        groups={"call": CALLS_AND_OUTPUTS, "hosted": HOSTED_CALLS},
    ),
]
InputItems = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of items"),
]


def stored_items(input_items: str | Sequence[Item], param: str = "input") -> list[dict[str, Any]]:
    """Convert input to stored items without ids, except for requests for approvals. References are not resolved.

    Hosted calls, and reasoning without a text, are dropped. Parts with files keep the name of their parameter, which
    begins with `param`, until `pipelines.chat.input_files` has found the files.
    """
    if isinstance(input_items, str):
        return [_message("user", [_text_part("user", input_items)])]
    call_ids = {item.id: item.call_id for item in input_items if isinstance(item, Call) and item.id}
    items = [_stored_item(item, call_ids, f"{param}[{index}]") for index, item in enumerate(input_items)]
    return [item for item in items if item]


def _stored_item(item: Item, call_ids: Mapping[str, str], param: str) -> dict[str, Any]:
    match item:
        case InputMessage():
            labels = {"name": item.name, "phase": item.phase}
            return {
                **_message(item.role, _parts(item.role, item.content, f"{param}.content")),
                **{key: label for key, label in labels.items() if label},
            }
        case LocalShellCallOutput(call_id=None, id=str(call)) if call in call_ids:  # the id is that of an item
            return {**stored_call(item), "call_id": call_ids[call]}
        case Compaction(encrypted_content=content):
            return {"type": "compaction", "encrypted_content": content}
        case ItemReference(id=item_id):
            return {"type": "item_reference", "id": item_id}
        case ReasoningItem():
            return _reasoning(item)
        case _ if isinstance(item, Call | CallOutput):
            return stored_call(item)
        case _ if isinstance(item, McpItem):
            return stored_mcp_item(item)
        case _:
            return {}


def _reasoning(item: ReasoningItem) -> dict[str, Any]:
    """Return the stored item; nothing for reasoning without a text."""
    summary, content = (
        [part.model_dump() for part in parts or () if part.text] for parts in (item.summary, item.content)
    )
    parts = {"summary": summary, "content": content}
    return {"type": "reasoning", **parts, "status": "completed"} if summary or content else {}


def _parts(role: str, content: Content, param: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [_text_part(role, content)]
    return [_part(role, part, f"{param}[{index}]") for index, part in enumerate(content)]


def _part(role: str, part: ContentPart, param: str) -> dict[str, Any]:
    if isinstance(part, InputFile):
        return stored_file(part, param)
    return _text_part(role, part.refusal if isinstance(part, Refusal) else part.text)


def _text_part(role: str, text: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _message(role: str, content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "status": "completed", "content": content}
