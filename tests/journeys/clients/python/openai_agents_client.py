"""OpenAI's Agents SDK, over responses and chat completions."""

from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalRequest,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.result import RunResultBase
from openai import AsyncOpenAI
from pydantic import BaseModel
from steps import AGENT, BOUGHT, BUY, MODEL, SHOP, check_history, check_text, run

set_tracing_disabled(True)

client = AsyncOpenAI(max_retries=0, timeout=60)
MODELS = [OpenAIResponsesModel(MODEL, client), OpenAIChatCompletionsModel(MODEL, client)]
AGENTS = [OpenAIResponsesModel(AGENT, client), OpenAIChatCompletionsModel(AGENT, client)]


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


@function_tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


async def hello() -> None:
    """Read an answer at once."""
    for model in MODELS:
        check_text((await Runner.run(Agent("clerk", instructions="Be kind.", model=model), "hello")).final_output)


async def stream() -> None:
    """Read the events of a run."""
    for model in MODELS:
        result = Runner.run_streamed(Agent("clerk", model=model), "hello")
        deltas = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        check_text("".join(deltas))
        check_text(result.final_output)


async def tools() -> None:
    """Let the agent call a function and answer."""
    for model in MODELS:
        result = await Runner.run(Agent("clerk", model=model, tools=[weather]), "Please call weather.")
        check_text(result.final_output)
        assert [item.output for item in result.new_items if item.type == "tool_call_output_item"] == ["It rains in ."]


async def schema() -> None:
    """Get the type that an agent has to answer with."""
    for model in MODELS:
        result = await Runner.run(Agent("clerk", model=model, output_type=Sighting), "hello")
        assert result.final_output == Sighting(animal="", count=0)


async def handoff() -> None:
    """Hand a question over to another agent."""
    for model in MODELS:
        other = Agent("translator", handoff_description="Translates.", model=model)
        result = await Runner.run(Agent("clerk", model=model, handoffs=[other]), "Please call transfer_to_translator.")
        check_text(result.final_output)
        assert result.last_agent.name == "translator"


async def conversation() -> None:
    """Continue with a session of the SDK, and with the responses that the server keeps."""
    for number, model in enumerate(MODELS):
        session = SQLiteSession(f"session {number}")
        agent = Agent("clerk", model=model)
        await Runner.run(agent, "one", session=session)
        result = await Runner.run(agent, "two", session=session)
        check_history(result.raw_responses[0].usage.input_tokens)
    agent = Agent("clerk", model=MODELS[0])
    first = await Runner.run(agent, "one", auto_previous_response_id=True)
    result = await Runner.run(agent, "two", previous_response_id=first.last_response_id)
    check_history(result.raw_responses[0].usage.input_tokens)


async def agent_as_tool() -> None:
    """Let an agent ask another one."""
    for model in MODELS:
        tool = Agent("translator", model=model).as_tool("translate", "Translates.")
        result = await Runner.run(Agent("clerk", model=model, tools=[tool]), "Please call translate.")
        check_text(result.final_output)
        (output,) = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
        check_text(output)


async def mcp() -> None:
    """Let the server call a tool of an MCP server, and read the events."""
    agent = Agent("clerk", model=MODELS[0], tools=[HostedMCPTool(SHOP)])
    result = await Runner.run(agent, BUY)
    check_text(result.final_output)
    assert bought(result) == [BOUGHT]
    streamed = Runner.run_streamed(agent, BUY)
    names = [event.name async for event in streamed.stream_events() if event.type == "run_item_stream_event"]
    assert {"mcp_list_tools", "tool_called", "message_output_created"} <= set(names), names
    assert bought(streamed) == [BOUGHT]
    check_text(streamed.final_output)


async def approval() -> None:
    """Decide on calls: as a function says, with and without a stream, and after an interruption."""
    tool = {**SHOP, "require_approval": "always"}
    for approve in (True, False):
        asked = []

        def decide(request: MCPToolApprovalRequest, approve: bool = approve, asked: list = asked) -> dict[str, bool]:
            asked.append(request.data.name)
            return {"approve": approve}

        agent = Agent("clerk", model=MODELS[0], tools=[HostedMCPTool(tool, decide)])
        result = await Runner.run(agent, BUY, auto_previous_response_id=True)
        streamed = Runner.run_streamed(agent, BUY)
        _ = [event async for event in streamed.stream_events()]
        for each in (result, streamed):
            check_text(each.final_output)
            assert bought(each) == ([BOUGHT] if approve else [])
        assert asked == ["buy"] * 2
    agent = Agent("clerk", model=MODELS[0], tools=[HostedMCPTool(tool)])
    state = (await Runner.run(agent, BUY)).to_state()
    (interruption,) = state.get_interruptions()
    state.approve(interruption)
    result = await Runner.run(agent, state)
    check_text(result.final_output)
    assert bought(result) == [BOUGHT]


def bought(result: RunResultBase) -> list[str]:
    """Return the outputs of the tool that the server called."""
    calls = [item.raw_item for item in result.new_items if item.type == "tool_call_item"]
    return [call.output for call in calls if call.type == "mcp_call"]


async def agent() -> None:
    """Ask an agent of the server, also with tools of one's own and for a handoff to it."""
    for model, other in zip(AGENTS, MODELS, strict=True):
        check_text((await Runner.run(Agent("buyer", model=model), BUY)).final_output)
        streamed = Runner.run_streamed(Agent("buyer", model=model), BUY)
        _ = [event async for event in streamed.stream_events()]
        check_text(streamed.final_output)
        mixed = await Runner.run(Agent("buyer", model=model, tools=[weather]), f"{BUY} And call weather.")
        check_text(mixed.final_output)
        assert [item.output for item in mixed.new_items if item.type == "tool_call_output_item"] == ["It rains in ."]
        clerk = Agent("clerk", model=other, handoffs=[Agent("buyer", model=model)])
        handed = await Runner.run(clerk, "Please call transfer_to_buyer.")
        check_text(handed.final_output)
        assert handed.last_agent.name == "buyer"


if __name__ == "__main__":
    run(hello, stream, tools, schema, mcp, agent, handoff, agent_as_tool, conversation, approval)
