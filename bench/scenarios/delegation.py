"""Time that a delegation to five agents takes beyond the engine's own, and from a cancel of its root until all stop.

The scripted engine needs no time, so what is measured is the platform's: the jobs of the agents, their join, and the
second step of the turn that delegates. Beside it turns without a delegation, with the same engine.
"""

import time
from collections.abc import Sequence
from contextlib import closing

from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY
from bench.harness.waiting import wait_until
from bench.scenario import Bench
from models.platform.database import Database, fetch_one

AGENTS, TURNS, WARM_UP = 5, 60, 10

SCRIPT = "tokens=5,rate=0"

#: Milliseconds beyond the engine's time, and from a cancel of the root until no agent runs.
GOAL, CANCEL_GOAL = at_most(50.0), at_most(100.0)

#: An answer that runs until it is cancelled; cancels that are measured, and agents that run then.
ENDLESS, CANCELS, RUNNING = "tokens=100000,rate=50", 10, 4


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
        Figure(f"cancel of the root → its {RUNNING} agents have stopped", "ms", cancels(bench), CANCEL_GOAL),
    ]


def cancels(bench: Bench) -> list[float]:
    """Return the milliseconds from cancels of roots until the jobs of all their agents have ended."""
    with (
        bench.stack.platform(engine="scripted", script=ENDLESS, slots=RUNNING) as platform,
        closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database,
    ):
        client = platform.client(0)
        client.post("/v1/agents", {"name": "worker"})
        instructions = f"call agents__worker {RUNNING} times"
        client.post("/v1/agents", {"name": "lead", "instructions": instructions, "agents": ["worker"]})
        return [cancel_once(client, database) for _ in range(CANCELS + 1)][1:]  # the first one warms up


def cancel_once(client: Client, database: Database) -> float:
    """Cancel a root whose agents all run."""
    body = {"model": "agent/lead", "input": "go", "background": True, **WITHOUT_MEMORY}
    response = client.post("/v1/responses", body)
    wait_until(lambda: count_running(database, response["job_id"]) == RUNNING)
    start = time.perf_counter()
    client.post(f"/v1/responses/{response['id']}/cancel", {})
    wait_until(lambda: count_running(database, response["job_id"]) == 0, interval=0.002)
    return 1000 * (time.perf_counter() - start)


RUNNING_BELOW = """
SELECT count(*) AS count FROM jobs WHERE parent_id = %(root_id)s AND state = 'running'
"""


def count_running(database: Database, root_id: str) -> int:
    """Return how many agents of a root run."""
    with database.connection() as connection:
        row = fetch_one(connection, RUNNING_BELOW, {"root_id": root_id})
    return int(row["count"]) if row else 0


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
