"""AutoGen, whose agents send their names."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel
from steps import MODEL, URL, check_text, run


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


async def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


model = OpenAIChatCompletionClient(
    model=MODEL,
    base_url=URL,
    max_retries=0,
    timeout=60,
    model_info={
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "structured_output": True,
        "family": ModelFamily.UNKNOWN,
    },
)


async def hello() -> None:
    """Read an answer at once."""
    result = await AssistantAgent("clerk", model).run(task="hello")
    check_text(result.messages[-1].content)


async def stream() -> None:
    """Read the pieces of an answer."""
    events = AssistantAgent("clerk", model, model_client_stream=True).run_stream(task="hello")
    pieces = [event.content async for event in events if isinstance(event, ModelClientStreamingChunkEvent)]
    check_text("".join(pieces))


async def tools() -> None:
    """Let an agent call a function and answer."""
    agent = AssistantAgent("clerk", model, tools=[weather], reflect_on_tool_use=True)
    result = await agent.run(task="Please call weather.")
    check_text(result.messages[-1].content)


async def schema() -> None:
    """Get JSON by a schema."""
    result = await model.create([UserMessage(content="hello", source="user")], json_output=Sighting)
    assert Sighting.model_validate_json(result.content) == Sighting(animal="", count=0)


async def agents() -> None:
    """Let two agents answer in turn, each of whom reads the other's name."""
    team = RoundRobinGroupChat(
        [AssistantAgent("clerk", model), AssistantAgent("translator", model)],
        termination_condition=MaxMessageTermination(4),
    )
    result = await team.run(task="hello")
    assert [message.source for message in result.messages] == ["user", "clerk", "translator", "clerk"]


if __name__ == "__main__":
    run(hello, stream, tools, schema, agents)
