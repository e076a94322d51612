"""OpenAI's Agents SDK, over responses and chat completions."""

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from steps import MODEL, check_history, check_text, run

set_tracing_disabled(True)

client = AsyncOpenAI(max_retries=0, timeout=60)
MODELS = [OpenAIResponsesModel(MODEL, client), OpenAIChatCompletionsModel(MODEL, client)]


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
    """Continue with a session of the SDK."""
    for number, model in enumerate(MODELS):
        session = SQLiteSession(f"session {number}")
        agent = Agent("clerk", model=model)
        await Runner.run(agent, "one", session=session)
        result = await Runner.run(agent, "two", session=session)
        check_history(result.raw_responses[0].usage.input_tokens)


if __name__ == "__main__":
    run(hello, stream, tools, schema, handoff, conversation)
