"""The scenarios by name, in the order of the table."""

from collections.abc import Mapping

from bench.scenario import Scenario
from bench.scenarios import (
    adversary,
    batches,
    cancel,
    cost,
    delegation,
    engine,
    fairness,
    files,
    hybrid,
    latency,
    llama,
    meditation,
    memory,
    peer,
    pools,
    posting,
    prefix,
    recall,
    recovery,
    reports,
    restart,
    scale,
    scaling,
    startup,
    streams,
    throughput,
    tracing,
    webhooks,
)

SCENARIOS: Mapping[str, Scenario] = {
    "first-event": Scenario(
        "time to a turn's first event and scripted token, idle and at half load", latency.first_event
    ),
    "first-token": Scenario("time to the first token beyond a real engine's own, and with memory", latency.first_token),
    "tokens-per-second": Scenario("tokens a second through the platform and without it", engine.tokens_per_second),
    "turns-per-second": Scenario("finished 20-token scripted turns a second", throughput.turns_per_second),
    "scaling": Scenario("finished turns a second with 1, 2 and 4 workers", scaling.scaling),
    "scale": Scenario("turns, /metrics and the relay beside a million jobs; ten million with --full", scale.scale),
    "cost": Scenario("CPU milliseconds a turn, by process", cost.cost),
    "delegation": Scenario("time to delegate to five agents and join them", delegation.delegation),
    "posting": Scenario("CPU time of a billed turn ÷ one that is not billed", posting.posting),
    "tracing": Scenario("CPU time of a turn whose spans are exported ÷ one without traces", tracing.tracing),
    "peer": Scenario("the same turns and kills on another platform, Aegra", peer.compare),
    "hybrid": Scenario("turns that spill to an endpoint, and LiteLLM's proxy before the same endpoint", hybrid.hybrid),
    "recovery": Scenario("time from kill -9 of a worker in mid-answer to the next token", recovery.recovery),
    "web-restart": Scenario("time from the end of a web process until its clients have caught up", restart.restart),
    "streams": Scenario("1,000 and 10,000 idle clients on one web process, and 500 busy ones", streams.streams),
    "cancel": Scenario("time from a cancel to a free slot", cancel.cancel),
    "fairness": Scenario("one account's turn behind two hundred of another one", fairness.fairness),
    "adversary": Scenario("honest turns beside each attack of a hostile account", adversary.resistance),
    "batches": Scenario("lines of batches a second, beside turns, and over kill -9", batches.batches),
    "webhooks": Scenario(
        "events until their webhooks arrive, beside a dead endpoint, and over kill -9", webhooks.webhooks
    ),
    "files": Scenario("files of 100 MB up and down, in a folder and in S3; 500 MB with --full", files.files),
    "reports": Scenario("a month's report over 1,000,000 turns, and its roll-ups", reports.reports),
    "pools": Scenario("requests to the other pools, until their result", pools.pools),
    "recall": Scenario("answering turns among the first hits, and the contribution of each part", recall.recall),
    "memory": Scenario("creating and searching memories over HTTP: 10,000; 1,000,000 with --full", memory.memory),
    "meditation": Scenario("meditation over 10,000 memories: time, memory, precision", meditation.meditation),
    "prefix": Scenario(
        "the second turn of a conversation against the first, and a fresh worker's first", prefix.prefix
    ),
    "llama": Scenario("a model in the shape of Llama 3.1 8B: load, first token, memory; makes 4.5 GB", llama.llama),
    "startup": Scenario("start of the engine, of the bare engine, and of `sangha up`", startup.startup),
}
