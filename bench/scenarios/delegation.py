"""Time that a delegation to five agents takes beyond the engine's own.

The scripted engine needs no time, so what is measured is the platform's: the jobs of the agents, their join, and the
second step of the turn that delegates. Beside it turns without a delegation, with the same engine.
"""

import time
from collections.abc import Sequence

from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY
from bench.scenario import Bench

AGENTS, TURNS, WARM_UP = 5, 60, 10

SCRIPT = "tokens=5,rate=0"

#: Milliseconds beyond the engine's time.
GOAL = at_most(50.0)


def delegation(bench: Bench) -> Sequence[Figure]:
    """Measure turns that delegate five ways and join. Raises CheckFailed if an agent did not answer."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        client = platform.client(0)
        create_agents(client)
        plain, delegated = [], []
        for index in range(WARM_UP + TURNS):
            bench.progress.step(index, WARM_UP + TURNS, "turns with a delegation and without")
            times = timed(client, "agent/worker", "hello"), timed(client, "agent/lead", "go", calls=AGENTS)
            if index >= WARM_UP:
                plain.append(times[0])
                delegated.append(times[1])
    return [
        Figure("turn without a delegation", "ms", plain),
        Figure(f"turn that delegates to {AGENTS} agents and joins", "ms", delegated),
        Figure("beyond the engine's time", "ms", delegated, GOAL),
    ]


def create_agents(client: Client) -> None:
    """Create the agent that delegates, and the one that answers."""
    client.post("/v1/agents", {"name": "worker"})
    instructions = f"call agents__worker {AGENTS} times"
    client.post("/v1/agents", {"name": "lead", "instructions": instructions, "agents": ["worker"]})


def timed(client: Client, model: str, question: str, calls: int = 0) -> float:
    """Return the milliseconds until the answer to a question, and check the agents that were asked."""
    start = time.perf_counter()
    response = client.post("/v1/responses", {"model": model, "input": question, **WITHOUT_MEMORY})
    elapsed = 1000 * (time.perf_counter() - start)
    answered = [item for item in response["output"] if item["type"] == "mcp_call" and item["status"] == "completed"]
    if response["status"] != "completed" or len(answered) != calls:
        raise CheckFailed(f"{model} answered {response['status']} with {len(answered)} of {calls} agents")
    return elapsed
