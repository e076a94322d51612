"""Request types of tools and of tool choices.

The caller runs all tools of a turn but those of MCP servers, which this server calls. Another tool that it would have
to run, such as a web search, is ignored and named in the response, or rejected if the request requires it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from pipelines.requests.content_types import FunctionName
from pipelines.requests.ignored_fields import is_tolerant, mark_without_effect
from pipelines.requests.ignored_parts import IgnoredPart
from pipelines.requests.mcp_types import McpReference, McpTool
from pipelines.requests.validation import RequestBody, branch, discriminate_text, should_be_one_of

#: Tools of one turn, and members of one group.
MAX_TOOLS = 128

#: Most characters of a grammar: about what a model can follow.
MAX_GRAMMAR = 32_768

Schema = dict[str, Any]
Description = Annotated[str, Field(max_length=16_384)]


class FunctionDefinition(RequestBody):
    """A function that the model may call; the caller runs it. `parameters` is the JSON Schema of its arguments."""

    name: FunctionName
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class FunctionTool(FunctionDefinition):
    """A function that the model may call; the caller runs it. `parameters` is the JSON Schema of its arguments."""

    type: Literal["function"]


class NestedFunctionTool(RequestBody):
    """A function tool, in the notation of Chat Completions."""

    type: Literal["function"]
    function: FunctionDefinition


class TextFormat(RequestBody):
    """The input of a custom tool is free text."""

    type: Literal["text"]


class Grammar(RequestBody):
    """A grammar of the input of a custom tool."""

    syntax: Literal["lark", "regex"]
    definition: Annotated[str, Field(max_length=MAX_GRAMMAR)]


class GrammarFormat(Grammar):
    """The input of a custom tool follows a grammar. A regular expression is enforced, Lark is shown to the model."""

    type: Literal["grammar"]


class NestedGrammar(RequestBody):
    """The input of a custom tool follows a grammar, in the notation of Chat Completions."""

    type: Literal["grammar"]
    grammar: Grammar


def _branch_of_format(value: Any) -> str | None:
    if _type(value) != "grammar":
        return branch("text") if _type(value) == "text" else None
    return branch("nested" if _has_object(value, "grammar") else "grammar")


CustomFormat = Annotated[
    Annotated[TextFormat, Tag(branch("text"))]
    | Annotated[GrammarFormat, Tag(branch("grammar"))]
    | Annotated[NestedGrammar, Tag(branch("nested"))],
    Discriminator(
        _branch_of_format,
        custom_error_type="unsupported_value",
        custom_error_message="should be one of 'text', 'grammar'",
    ),
]


class CustomDefinition(RequestBody):
    """A tool whose input is a text; the caller runs it."""

    name: FunctionName
    description: Description | None = None
    format: CustomFormat | None = None


class CustomTool(CustomDefinition):
    """A tool whose input is a text; the caller runs it."""

    type: Literal["custom"]


class NestedCustomTool(RequestBody):
    """A custom tool, in the notation of Chat Completions."""

    type: Literal["custom"]
    custom: CustomDefinition


class LocalShellTool(RequestBody):
    """A command of the caller's machine."""

    type: Literal["local_shell"]


class ShellEnvironment(RequestBody):
    """Where shell commands run: only on the caller's machine."""

    type: str


class ShellTool(RequestBody):
    """Shell commands on the caller's machine. A tool with another environment is ignored."""

    type: Literal["shell"]
    environment: ShellEnvironment | None = None

    @property
    def is_hosted(self) -> bool:
        """Whether the commands should run in a container of the server."""
        return self.environment is not None and self.environment.type != "local"

    def without_effect(self) -> Iterable[str]:
        """Name the tool if it is ignored."""
        return ["(shell in a container)"] if self.is_hosted else []

    @model_validator(mode="after")
    def _reject_unless_tolerant(self, info: ValidationInfo) -> "ShellTool":
        if self.is_hosted:
            if not is_tolerant(info):
                raise PydanticCustomError("unsupported_parameter", "no container runs commands here")
            mark_without_effect(info)
        return self


class ApplyPatchTool(RequestBody):
    """Changes of files on the caller's machine."""

    type: Literal["apply_patch"]


#: Types of tools that the caller runs.
CLIENT_TOOLS = ("function", "custom", "namespace", "local_shell", "shell", "apply_patch")

#: Types of tools of a turn.
TOOLS = (*CLIENT_TOOLS, "mcp")


class HostedTool(IgnoredPart):
    """A tool that the server would have to run, such as `web_search`. It is ignored."""

    supported = TOOLS


def _branch_of_member(value: Any) -> str | None:
    type_ = _type(value)
    if type_ in ("function", "custom"):
        return branch(f"nested_{type_}" if _has_object(value, type_) else type_)
    return branch("hosted") if isinstance(type_, str) else None


def _branch_of_tool(value: Any) -> str | None:
    type_ = _type(value)
    return branch(type_) if type_ in TOOLS[2:] else _branch_of_member(value)


def _type(value: Any) -> Any:
    return value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)


def _has_object(value: Any, name: str) -> bool:
    """Return whether a tool has its definition in an object of this name, as in Chat Completions."""
    nested = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return isinstance(nested, Mapping | RequestBody)


def _discriminator(choose: Callable[[Any], str | None], supported: Sequence[str]) -> Discriminator:
    return Discriminator(
        choose, custom_error_type="unsupported_value", custom_error_message=should_be_one_of(supported)
    )


#: The tools of chat completions, and of a group.
ChatTool = Annotated[
    Annotated[FunctionTool, Tag(branch("function"))]
    | Annotated[NestedFunctionTool, Tag(branch("nested_function"))]
    | Annotated[CustomTool, Tag(branch("custom"))]
    | Annotated[NestedCustomTool, Tag(branch("nested_custom"))]
    | Annotated[HostedTool, Tag(branch("hosted"))],
    _discriminator(_branch_of_member, CLIENT_TOOLS[:2]),
]


class NamespaceTool(RequestBody):
    """A group of tools. The model sees each as `NAMESPACE__NAME`; a call has `name` and `namespace`."""

    type: Literal["namespace"]
    name: FunctionName
    description: Description | None = None
    tools: Annotated[list[ChatTool], Field(max_length=MAX_TOOLS)]


Tool = Annotated[
    Annotated[FunctionTool, Tag(branch("function"))]
    | Annotated[NestedFunctionTool, Tag(branch("nested_function"))]
    | Annotated[CustomTool, Tag(branch("custom"))]
    | Annotated[NestedCustomTool, Tag(branch("nested_custom"))]
    | Annotated[NamespaceTool, Tag(branch("namespace"))]
    | Annotated[LocalShellTool, Tag(branch("local_shell"))]
    | Annotated[ShellTool, Tag(branch("shell"))]
    | Annotated[ApplyPatchTool, Tag(branch("apply_patch"))]
    | Annotated[McpTool, Tag(branch("mcp"))]
    | Annotated[HostedTool, Tag(branch("hosted"))],
    _discriminator(_branch_of_tool, TOOLS),
]


class ReferencedName(RequestBody):
    """The name of a function or a custom tool."""

    name: FunctionName


class ToolReference(RequestBody):
    """A reference to a function, a custom tool or a group by its name."""

    type: Literal["function", "custom", "namespace"]
    name: FunctionName


class NestedFunctionReference(RequestBody):
    """A reference to a function, in the notation of Chat Completions."""

    type: Literal["function"]
    function: ReferencedName


class NestedCustomReference(RequestBody):
    """A reference to a custom tool, in the notation of Chat Completions."""

    type: Literal["custom"]
    custom: ReferencedName


class TypeReference(RequestBody):
    """A reference to a tool by its type: a shell or patch tool, or one that the server would have to run."""

    model_config = ConfigDict(extra="ignore")

    type: str

    @property
    def is_hosted(self) -> bool:
        """Whether the server would have to run the tool."""
        return self.type not in CLIENT_TOOLS

    def without_effect(self) -> Iterable[str]:
        """Name the tool if it is ignored."""
        return [f"({self.type})"] if self.is_hosted else []

    @model_validator(mode="after")
    def _mark_without_effect(self, info: ValidationInfo) -> "TypeReference":
        if self.is_hosted:
            mark_without_effect(info)
        return self


def _branch_of_reference(value: Any) -> str | None:
    type_ = _type(value)
    if type_ in ("function", "custom", "namespace"):
        return branch(f"nested_{type_}" if type_ != "namespace" and _has_object(value, type_) else "named")
    if type_ == "mcp":
        return branch("mcp")
    return branch("typed") if isinstance(type_, str) else None


AnyReference = Annotated[
    Annotated[ToolReference, Tag(branch("named"))]
    | Annotated[NestedFunctionReference, Tag(branch("nested_function"))]
    | Annotated[NestedCustomReference, Tag(branch("nested_custom"))]
    | Annotated[McpReference, Tag(branch("mcp"))]
    | Annotated[TypeReference, Tag(branch("typed"))],
    _discriminator(_branch_of_reference, TOOLS),
]


class AllowedToolList(RequestBody):
    """A subset of the tools that the model may call; with `mode` `required` it must call one."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[AnyReference], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedTools(AllowedToolList):
    """A subset of the tools that the model may call; with `mode` `required` it must call one."""

    type: Literal["allowed_tools"]


class NestedAllowedTools(RequestBody):
    """A subset of the tools, in the notation of Chat Completions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolList


def _branch_of_selection(value: Any) -> str | None:
    if _type(value) != "allowed_tools":
        return _branch_of_reference(value)
    return branch("nested_allowed" if _has_object(value, "allowed_tools") else "allowed")


ToolSelection = Annotated[
    Annotated[ToolReference, Tag(branch("named"))]
    | Annotated[NestedFunctionReference, Tag(branch("nested_function"))]
    | Annotated[NestedCustomReference, Tag(branch("nested_custom"))]
    | Annotated[McpReference, Tag(branch("mcp"))]
    | Annotated[TypeReference, Tag(branch("typed"))]
    | Annotated[AllowedTools, Tag(branch("allowed"))]
    | Annotated[NestedAllowedTools, Tag(branch("nested_allowed"))],
    _discriminator(_branch_of_selection, ("allowed_tools", *TOOLS)),
]
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag(branch("text"))]
    | Annotated[ToolSelection, Tag(branch("other"))],
    discriminate_text("an object"),
]
