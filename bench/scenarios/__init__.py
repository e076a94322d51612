"""What is measured, by name, in the order of the table."""

from collections.abc import Mapping

from bench.bench import Scenario
from bench.scenarios import (
    cancel,
    cost,
    engine,
    fairness,
    latency,
    meditation,
    memory,
    peer,
    pools,
    recall,
    recovery,
    restart,
    scaling,
    startup,
    streams,
    throughput,
)

SCENARIOS: Mapping[str, Scenario] = {
    "first-event": Scenario("a turn's first event and scripted token, idle and at half load", latency.first_event),
    "first-token": Scenario("a turn's first token, beyond a real engine's own, and with memory", latency.first_token),
    "tokens-per-second": Scenario("tokens a second through the platform and without it", engine.tokens_per_second),
    "turns-per-second": Scenario("finished 20-token scripted turns a second", throughput.turns_per_second),
    "scaling": Scenario("the same with 1, 2 and 4 workers", scaling.scaling),
    "cost": Scenario("CPU milliseconds a turn, by process", cost.cost),
    "peer": Scenario("the same turns and kills beside another platform, Aegra", peer.beside),
    "recovery": Scenario("from a worker's kill -9 in mid-answer to the next token", recovery.recovery),
    "web-restart": Scenario("from a web process's end to clients that have caught up at another", restart.restart),
    "streams": Scenario("1,000 and 10,000 idle clients on one web process, and 500 busy ones", streams.streams),
    "cancel": Scenario("from a cancel to a free slot", cancel.cancel),
    "fairness": Scenario("one account's turn behind another one's two hundred", fairness.fairness),
    "pools": Scenario("work of the other pools, through the door and back", pools.pools),
    "recall": Scenario(
        "the share of answering turns among the first hits, and what each part of recall is worth", recall.recall
    ),
    "memory": Scenario(
        "remembering, and searching memories over HTTP: 10,000; to 1,000,000 with --full", memory.memory
    ),
    "meditation": Scenario("10,000 memories thought over, and how much of that is right", meditation.meditation),
    "startup": Scenario("the engine's start and the bare engine's load, and the start of all", startup.startup),
}
