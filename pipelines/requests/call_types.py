"""Input items of calls that the caller ran, and of their outputs, for each type of tool."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from pipelines.chat.call_items import CALLS_BY_TOOL
from pipelines.requests.content_types import MAX_ITEMS, FunctionName, Id, ItemStatus, OutputPart
from pipelines.requests.validation import RequestBody, branch, discriminate_by_type, discriminate_text

#: The output of a call: a text, or parts of text.
TextOutput = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[OutputPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]

#: Milliseconds and lengths that a call sets as limits for the caller.
Limit = Annotated[int, Field(ge=0)]


class FunctionCall(RequestBody):
    """A function call of an earlier output."""

    type: Literal["function_call"]
    call_id: Id
    name: FunctionName
    arguments: str
    namespace: FunctionName | None = None
    id: str | None = None
    status: ItemStatus | None = None


class FunctionCallOutput(RequestBody):
    """The output of a function call."""

    type: Literal["function_call_output"]
    call_id: Id
    output: TextOutput
    id: str | None = None
    name: FunctionName | None = None
    namespace: FunctionName | None = None
    status: ItemStatus | None = None


class CustomToolCall(RequestBody):
    """A call of a custom tool, of an earlier output."""

    type: Literal["custom_tool_call"]
    call_id: Id
    name: FunctionName
    input: str
    namespace: FunctionName | None = None
    id: str | None = None
    status: ItemStatus | None = None


class CustomToolCallOutput(RequestBody):
    """The output of a custom tool."""

    type: Literal["custom_tool_call_output"]
    call_id: Id
    output: TextOutput
    id: str | None = None
    name: FunctionName | None = None
    namespace: FunctionName | None = None
    status: ItemStatus | None = None


class LocalShellAction(RequestBody):
    """A command: a program and its arguments."""

    type: Literal["exec"] = "exec"
    command: Annotated[list[str], Field(max_length=MAX_ITEMS)]
    env: dict[str, str] | None = None
    timeout_ms: Limit | None = None
    user: str | None = None
    working_directory: str | None = None


class LocalShellCall(RequestBody):
    """A command of an earlier output."""

    type: Literal["local_shell_call"]
    call_id: Id
    action: LocalShellAction
    id: str | None = None
    status: ItemStatus | None = None


class LocalShellCallOutput(RequestBody):
    """The output of a command. `id` is that of the call, in OpenAI's API its `call_id`."""

    type: Literal["local_shell_call_output"]
    output: str
    id: Id | None = None
    call_id: Id | None = None
    status: ItemStatus | None = None


class ShellAction(RequestBody):
    """Shell commands, which run one after the other."""

    commands: Annotated[list[str], Field(max_length=MAX_ITEMS)]
    timeout_ms: Limit | None = None
    max_output_length: Limit | None = None


class ShellCall(RequestBody):
    """Shell commands of an earlier output."""

    type: Literal["shell_call"]
    call_id: Id
    action: ShellAction
    environment: dict[str, Any] | None = None
    id: str | None = None
    status: ItemStatus | None = None


class CommandOutcome(RequestBody):
    """How a command ended."""

    type: Literal["exit", "timeout"]
    exit_code: int | None = None


class CommandOutput(RequestBody):
    """What a command wrote."""

    stdout: str
    stderr: str
    outcome: CommandOutcome


class ShellCallOutput(RequestBody):
    """The outputs of shell commands."""

    type: Literal["shell_call_output"]
    call_id: Id
    output: Annotated[list[CommandOutput], Field(max_length=MAX_ITEMS)]
    max_output_length: Limit | None = None
    id: str | None = None
    status: ItemStatus | None = None


class PatchOperation(RequestBody):
    """A change of a file."""

    type: Literal["create_file", "update_file", "delete_file"]
    path: str
    diff: str | None = None


class ApplyPatchCall(RequestBody):
    """A change of a file, of an earlier output."""

    type: Literal["apply_patch_call"]
    call_id: Id
    operation: PatchOperation
    id: str | None = None
    status: ItemStatus | None = None


class ApplyPatchCallOutput(RequestBody):
    """Whether a file was changed."""

    type: Literal["apply_patch_call_output"]
    call_id: Id
    status: Literal["completed", "failed"]
    output: str | None = None
    id: str | None = None


Call = FunctionCall | CustomToolCall | LocalShellCall | ShellCall | ApplyPatchCall
CallOutput = FunctionCallOutput | CustomToolCallOutput | LocalShellCallOutput | ShellCallOutput | ApplyPatchCallOutput

#: The types of calls, each followed by that of its output.
CALLS_AND_OUTPUTS = tuple(type_ for call, _ in CALLS_BY_TOOL.values() for type_ in (call, f"{call}_output"))

CallOrOutput = Annotated[
    Annotated[FunctionCall, Tag(branch("function_call"))]
    | Annotated[FunctionCallOutput, Tag(branch("function_call_output"))]
    | Annotated[CustomToolCall, Tag(branch("custom_tool_call"))]
    | Annotated[CustomToolCallOutput, Tag(branch("custom_tool_call_output"))]
    | Annotated[LocalShellCall, Tag(branch("local_shell_call"))]
    | Annotated[LocalShellCallOutput, Tag(branch("local_shell_call_output"))]
    | Annotated[ShellCall, Tag(branch("shell_call"))]
    | Annotated[ShellCallOutput, Tag(branch("shell_call_output"))]
    | Annotated[ApplyPatchCall, Tag(branch("apply_patch_call"))]
    | Annotated[ApplyPatchCallOutput, Tag(branch("apply_patch_call_output"))],
    discriminate_by_type(*CALLS_AND_OUTPUTS),
]


def stored_call(item: Call | CallOutput) -> dict[str, Any]:
    """Return the stored form of a call or an output, without an id of its own."""
    fields = item.model_dump(exclude_none=True, exclude={"id", "status"})
    match item:
        case ApplyPatchCallOutput():
            return {**fields, "output": item.output, "status": item.status}
        case FunctionCallOutput() | CustomToolCallOutput():
            return {"type": item.type, "call_id": item.call_id, "output": _stored_output(item.output),
                    "status": "completed"}  # fmt: skip
        case LocalShellCall():
            return {**fields, "action": _with_absent_fields(item.action), "status": "completed"}
        case ShellCall():
            return {**fields, "action": item.action.model_dump(), "status": "completed"}
        case LocalShellCallOutput():
            return {**fields, "call_id": item.call_id or item.id or "", "status": "completed"}
        case _:
            return {**fields, "status": "completed"}


def _stored_output(output: Any) -> Any:
    return output if isinstance(output, str) else [{"type": "input_text", "text": part.text} for part in output]


def _with_absent_fields(action: LocalShellAction) -> dict[str, Any]:
    return {**action.model_dump(), "env": action.env or {}}
