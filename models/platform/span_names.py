"""The names of spans, their attributes and events.

Those with `gen_ai`, `http`, `messaging`, `mcp` and `error` are of OpenTelemetry's semantic conventions; those for
generative AI are in flux, so they are here only. Those with `sangha` are ours.
"""

from typing import Final

# Attributes.
ERROR_TYPE: Final = "error.type"

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
SERVER_ADDRESS: Final = "server.address"
REQUEST_ID: Final = "sangha.request.id"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"

JOB_ID: Final = "sangha.job.id"
JOB_KIND: Final = "sangha.job.kind"
JOB_ATTEMPT: Final = "sangha.job.attempt"
JOB_OUTCOME: Final = "sangha.job.outcome"
JOB_QUEUE_SECONDS: Final = "sangha.job.queue_seconds"

GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"

PAYMENT_STATE: Final = "sangha.payment.state"
MEMORIES: Final = "sangha.memories.count"

# Events.
FIRST_TOKEN: Final = "gen_ai.first_token"  # noqa: S105 - a name

# Names of spans.
RECALL: Final = "recall memories"
DELIVER: Final = "deliver webhook"


def attempt(kind: str) -> str:
    """Return the name of the span of an attempt at a job."""
    return f"process {kind}"


def chat(model: str) -> str:
    """Return the name of the span of a generation."""
    return f"chat {model}"


def execute_tool(name: str) -> str:
    """Return the name of the span of a tool call."""
    return f"execute_tool {name}"


def invoke_agent(name: str) -> str:
    """Return the name of the span of an agent's turn."""
    return f"invoke_agent {name}"


def charge(gateway: str) -> str:
    """Return the name of the span of a charge at a payment gateway."""
    return f"charge {gateway}"


def request(method: str, route: str) -> str:
    """Return the name of the span of a request, without what callers choose."""
    return f"{method} {route}"
