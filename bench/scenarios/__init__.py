"""What is measured, by name, in the order of the table."""

from collections.abc import Mapping

from bench.bench import Scenario
from bench.scenarios import cancel, engine, fairness, latency, meditation, memory, recall, recovery, startup, throughput

SCENARIOS: Mapping[str, Scenario] = {
    "first-event": Scenario("from a turn's POST to its stream's first event", latency.first_event),
    "first-token": Scenario("from a turn's POST to its first token, beyond the engine's own time", latency.first_token),
    "tokens-per-second": Scenario("tokens a second through the platform and without it", engine.tokens_per_second),
    "turns-per-second": Scenario("finished 20-token scripted turns a second", throughput.turns_per_second),
    "recovery": Scenario("from a worker's kill -9 in mid-answer to the next token", recovery.recovery),
    "cancel": Scenario("from a cancel to a free slot", cancel.cancel),
    "fairness": Scenario("one account's turn behind another one's two hundred", fairness.fairness),
    "recall": Scenario(
        "the share of answering turns among the first hits, and what each part of recall is worth", recall.recall
    ),
    "memory": Scenario("remembering, and searching memories over HTTP: 10,000, or 100,000 with --full", memory.memory),
    "meditation": Scenario("10,000 memories thought over, and how much of that is right", meditation.meditation),
    "startup": Scenario("the engine's start and the bare engine's load", startup.startup),
}
