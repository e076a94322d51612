"""The metrics of all processes: their names, labels and meanings, and the instruments that count in this process.

Names follow Prometheus' rules and vLLM's nouns: base units, and the suffixes `_seconds`, `_bytes`, `_ratio` and
`_total`. Labels have few values, those of the installation; no label has an account, a job, a user or a text of a
request.

An instrument of the client library counts where something happens. A `ScrapedMetric` is read at each scrape, by a
process that registers how: see `models.platform.exposition`.
"""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from models.platform import tracing

# The `_created` series beside each counter would double the exposition.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: The instruments of this process.
REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

#: Bounds of buckets in seconds: of what takes milliseconds, of what may take minutes, and of single tokens.
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)

#: The models that this process may name in labels; those of requests could be any number.
_models: set[str] = set()


def name_model(name: str) -> None:
    """Let labels name a model that this process serves."""
    _models.add(name)


def model_label(name: str) -> str:
    """Return the label of a model: its name, or `other` where this process does not serve it."""
    return name if name in _models else "other"


def observe(histogram: Histogram, value: float) -> None:
    """Count a value in a child of a histogram, with the present trace as an exemplar, if there is one."""
    trace_id = tracing.current_trace_id()
    histogram.observe(value, {"trace_id": trace_id} if trace_id else None)


@dataclass(frozen=True, slots=True)
class ScrapedMetric:
    """A gauge, or a counter that processes share, whose values are read at each scrape. `name` has its suffix."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    type: Literal["gauge", "counter"] = "gauge"


# Jobs

JOB_QUEUE_WAIT = Histogram(
    "sangha_job_queue_wait_seconds",
    "Seconds from the time that a job was due to its claim by a worker",
    ("queue", "kind"),
    buckets=LONG,
    registry=REGISTRY,
)
JOB_ATTEMPT_DURATION = Histogram(
    "sangha_job_attempt_duration_seconds",
    "Seconds of an attempt; outcome: the job's final state, waiting, retried, released, moved, fenced or error",
    ("kind", "outcome"),
    buckets=LONG,
    registry=REGISTRY,
)
JOBS_ENDED = Counter(
    "sangha_jobs_ended_total", "Jobs that attempts have ended", ("kind", "state"), registry=REGISTRY
)  # fmt: skip
RELAY_PUBLISHED = Counter(
    "sangha_relay_published_total", "Messages that the relay of this process has published", registry=REGISTRY
)
JOBS = ScrapedMetric(
    "sangha_jobs", "Jobs that are due, running, waiting for others, or dead", ("queue", "kind", "state")
)
SCHEDULED_JOBS = ScrapedMetric("sangha_scheduled_jobs", "Jobs that are due later; an estimate from 10,000 on")
OLDEST_JOB = ScrapedMetric(
    "sangha_oldest_job_seconds", "Seconds for which the oldest due job has been waiting for a worker", ("queue",)
)
RELAY_LAG = ScrapedMetric(
    "sangha_relay_lag_seconds", "Seconds for which the oldest job that may be published has been due; 0: none is"
)
WORKERS = ScrapedMetric(
    "sangha_workers", "Registered workers by pool; silent: without a heartbeat for 30 seconds", ("pool", "state")
)
WORKER_LEASE_AGE = ScrapedMetric(
    "sangha_worker_lease_age_seconds", "Seconds since the oldest heartbeat of a pool's live workers", ("pool",)
)

# Turns and models

TIME_TO_FIRST_TOKEN = Histogram(
    "sangha_time_to_first_token_seconds",
    "Seconds from the creation of a turn to its first token, by whichever attempt generates it",
    ("model",),
    buckets=SHORT,
    registry=REGISTRY,
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "sangha_time_per_output_token_seconds",
    "Mean seconds per token of an answer, after its first token",
    ("model",),
    buckets=TOKEN,
    registry=REGISTRY,
)
TURN_DURATION = Histogram(
    "sangha_turn_duration_seconds",
    "Seconds from the creation of a turn to its end",
    ("model", "state"),
    buckets=LONG,
    registry=REGISTRY,
)
PROMPT_TOKENS = Counter(
    "sangha_prompt_tokens_total", "Tokens of prompts that engines have read", ("model",), registry=REGISTRY
)
GENERATION_TOKENS = Counter(
    "sangha_generation_tokens_total", "Tokens that engines have generated", ("model",), registry=REGISTRY
)
ENGINE_SLOTS = ScrapedMetric("sangha_engine_slots", "Slots of the engine of this process", ("model", "state"))
MODEL_PREDICTED_WAIT = ScrapedMetric(
    "sangha_model_predicted_wait_seconds",
    "Predicted wait of a turn that is sent now, of an account without others; absent where it is unknown",
    ("model",),
)
MODEL_TURNS = ScrapedMetric(
    "sangha_model_turns",
    "Queued and running interactive turns, of an endpoint those of all its models",
    ("model", "state"),
)
MODEL_SLOTS = ScrapedMetric("sangha_model_slots", "Slots of the live workers", ("model",))
ENDED_TURNS = ScrapedMetric(
    "sangha_ended_turns", "Turns that ended today (UTC), in the queue of a local model or an endpoint", ("queue",)
)
TURN_MOVES = ScrapedMetric(
    "sangha_turn_moves_total",
    "Moves of turns between local models and an endpoint",
    ("endpoint", "reason"),
    "counter",
)

# Endpoints

ENDPOINT_BREAKER = ScrapedMetric(
    "sangha_endpoint_breaker",
    "1 for the state of the circuit breaker, as an operator has set it if one has",
    ("endpoint", "state"),
)
ENDPOINT_SATURATED = ScrapedMetric(
    "sangha_endpoint_saturated_seconds", "Seconds for which the endpoint has asked for no requests", ("endpoint",)
)
ENDPOINT_WINDOW_REQUESTS = ScrapedMetric(
    "sangha_endpoint_window_requests",
    "The last requests, at most 20, as the breaker counts them; successes only once one has failed",
    ("endpoint", "outcome"),
)
ENDPOINT_FAILURES = ScrapedMetric(
    "sangha_endpoint_failures_total", "Requests to the endpoint that failed", ("endpoint", "kind"), "counter"
)
SPILL_TURNS = ScrapedMetric(
    "sangha_spill_turns", "Turns of local models that were moved to the endpoint today (UTC)", ("endpoint",)
)
SPILL_COST = ScrapedMetric(
    "sangha_spill_cost",
    "Cost of today's moved turns (UTC), spent and reserved, in the currency of the prices",
    ("endpoint", "state"),
)
SPILL_BUDGET_USED = ScrapedMetric(
    "sangha_spill_budget_used_ratio",
    "Used part of today's spill budget (UTC), of each limit that is set",
    ("endpoint", "limit"),
)

# Memory, tools, webhooks, money

RECALL_DURATION = Histogram(
    "sangha_recall_duration_seconds",
    "Seconds of a search for memories, its query's embedding included",
    buckets=SHORT,
    registry=REGISTRY,
)
EMBEDDING_DURATION = Histogram(
    "sangha_embedding_duration_seconds",
    "Seconds of a call of the embedder, with all its texts",
    buckets=SHORT,
    registry=REGISTRY,
)
TOOL_CALL_DURATION = Histogram(
    "sangha_tool_call_duration_seconds",
    "Seconds of a tool call that the server makes; kind: platform, or mcp for one of an MCP server",
    ("kind", "outcome"),
    buckets=LONG,
    registry=REGISTRY,
)
DELIVERY_DURATION = Histogram(
    "sangha_delivery_duration_seconds",
    "Seconds of a request to a webhook endpoint; outcome: accepted, rejected or unanswered",
    ("outcome",),
    buckets=SHORT,
    registry=REGISTRY,
)
WEBHOOK_ENDPOINTS = ScrapedMetric(
    "sangha_webhook_endpoints", "Webhook endpoints; failing: enabled, but the last request failed", ("state",)
)
CHARGE_DURATION = Histogram(
    "sangha_charge_duration_seconds",
    "Seconds of a charge at a payment gateway; outcome: the payment's state, or error",
    ("gateway", "outcome"),
    buckets=LONG,
    registry=REGISTRY,
)

# HTTP and streams

HTTP_REQUESTS = Counter(
    "sangha_http_requests_total", "Requests answered", ("route", "method", "status"), registry=REGISTRY
)
HTTP_REQUEST_DURATION = Histogram(
    "sangha_http_request_duration_seconds",
    "Seconds from a request to the first byte of its response",
    ("route", "method"),
    buckets=SHORT,
    registry=REGISTRY,
)
STREAM_DELIVERY = Histogram(
    "sangha_stream_delivery_seconds",
    "Seconds from an event's write in Redis to the writes to the clients that follow it; of a sample of events",
    buckets=SHORT,
    registry=REGISTRY,
)
OPEN_STREAMS = ScrapedMetric("sangha_open_streams", "Open event streams")
SLOW_STREAMS = ScrapedMetric("sangha_slow_streams", "Open event streams whose client does not read what was written")
EVENT_LOOP_BUSY = ScrapedMetric(
    "sangha_event_loop_longest_busy_seconds",
    "Longest CPU time of the event loop without a pause, in the last one to two minutes",
)

# Processes and servers

BUILD_INFO = ScrapedMetric("sangha_build_info", "1, with the version and the commit of the code", ("version", "commit"))
DATABASE_POOL_CONNECTIONS = ScrapedMetric(
    "sangha_database_pool_connections", "Connections to Postgres of a pool of this process", ("pool", "state")
)
DATABASE_POOL_WAITING = ScrapedMetric(
    "sangha_database_pool_waiting", "Threads that wait for a connection of the pool", ("pool",)
)
JOURNAL_MEMORY = ScrapedMetric(
    "sangha_journal_memory_bytes", "Bytes of events that this worker keeps of the attempts that it runs"
)
REDIS_MEMORY = ScrapedMetric("sangha_redis_memory_bytes", "Memory that Redis uses, which has the journals")
REDIS_MEMORY_LIMIT = ScrapedMetric(
    "sangha_redis_memory_limit_bytes", "Memory that Redis may use; absent without a limit"
)
SCHEDULER_LAST_RUN = ScrapedMetric(
    "sangha_scheduler_last_run_timestamp_seconds", "Time of the last run of a task that raised no error", ("task",)
)
SCHEDULER_LEADER = ScrapedMetric(
    "sangha_scheduler_leader", "1 while this scheduler sweeps and fires; any number of schedulers do, side by side"
)
PROCESS_RESTARTS = ScrapedMetric(
    "sangha_process_restarts_total", "Restarts of a process by `sangha up`", ("process",), "counter"
)

# Promises: each is 0 while it is kept

PROMISE_LOST_TURNS = ScrapedMetric(
    "sangha_promise_lost_turns", "Turns that no worker will end, or whose answer is not recorded; must be 0"
)
PROMISE_REPEATED_EVENTS = ScrapedMetric(
    "sangha_promise_repeated_events", "Ended turns whose archive has an event twice, or a gap; must be 0"
)
PROMISE_DOUBLE_CHARGES = ScrapedMetric(
    "sangha_promise_double_charges", "Turns and invoices that were charged more than once; must be 0"
)
PROMISE_UNBALANCED_POSTINGS = ScrapedMetric(
    "sangha_promise_unbalanced_postings",
    "Bookings of the ledger that lack a posting, or have another amount; must be 0",
)
PROMISES_CHECKED = ScrapedMetric(
    "sangha_promises_checked_timestamp_seconds", "Time up to which the promises have been checked"
)
