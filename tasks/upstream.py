"""The actors of the pool `upstream`: the models of all endpoints of SANGHA_UPSTREAMS, in one process.

Each endpoint has a queue with a thread for each of its slots, and connections that its models share. A job's route, or
else its model, names the engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from models.jobs.attempt_context import Attempt, Handler, Outcome, plain_ending
from models.jobs.attempts import Ending
from models.jobs.catalogue import batch_queue, is_batch, priority_queue, priority_share
from models.jobs.jobs import Job
from models.platform.compatibility import Compatibility
from models.platform.errors import ConfigurationError, PermanentFailure
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from models.serving.endpoint_results import EndpointResults
from models.serving.queues import endpoint_of, endpoint_queue
from pipelines.agents.server_tools import load_tools
from pipelines.chat import compact_context, token_count, turn
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.job_model import requested_model
from pipelines.chat.job_requests import engine_of_attempt
from pipelines.chat.turn_recall import TurnRecall
from pipelines.inference.engine import Engine
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.inference.openai import describe_upstream, pool_models, upstream_context
from pipelines.inference.openai.endpoint_client import EndpointClient
from pipelines.inference.openai.engine import OpenAIEngine
from pipelines.inference.own_prompts import OwnPrompts
from pipelines.memory.recall_counter import RecallCounter
from pipelines.routing.endpoint_guard import run_guarded, unserved
from pipelines.routing.residency import check_dispatch
from tasks.job_runner import JobRunner
from tasks.slot_sharing import Run, SlotSharing


@dataclass(frozen=True, slots=True)
class Model:
    """A model of an endpoint, and the prompts that this process has sent to it."""

    engine: OpenAIEngine
    own_prompts: OwnPrompts


class Endpoint:
    """The models of one endpoint by name, the default one first, and how they share its slots."""

    def __init__(self, upstream: Upstream, models: Sequence[str], settings: Settings) -> None:
        self.name, self.slots = upstream.name, upstream.slots
        self.sharing = SlotSharing(upstream.slots)
        client = EndpointClient(upstream, upstream.slots)
        isolates_prompts = settings.prompt_cache == "account"
        engines = [
            OpenAIEngine(
                upstream,
                model,
                slots=upstream.slots,
                context=upstream_context(upstream),
                client=client,
                isolates_prompts=isolates_prompts,
            )
            for model in models
        ]
        self.models = {engine.name: Model(engine, OwnPrompts(engine)) for engine in engines}


class Endpoints:
    """The endpoints of the settings by name."""

    def __init__(self, settings: Settings) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        pairs = pool_models(settings)
        for upstream in settings.upstreams:
            if models := [model for other, model in pairs if other.name == upstream.name]:
                self._endpoints[upstream.name] = Endpoint(upstream, models, settings)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints.values())

    def of_job(self, job: Job) -> Endpoint:
        """Return the endpoint whose queue the job is in. Raises PermanentFailure."""
        endpoint = self._endpoints.get(endpoint_of(job.queue) or "")
        if endpoint is None:
            raise PermanentFailure(f"No endpoint has the queue {job.queue}.", code="model_not_found")
        return endpoint

    def model_of(self, attempt: Attempt) -> Model:
        """Return the model of a job: its route's, or that of its request. Raises PermanentFailure."""
        endpoint = self.of_job(attempt.job)
        name = model_name(attempt, endpoint.name)
        model = endpoint.models.get(name) if name else next(iter(endpoint.models.values()))
        if model is None:
            raise PermanentFailure(f"The endpoint {endpoint.name} has no model '{name}'.", code="model_not_found")
        return model


def model_name(attempt: Attempt, endpoint: str) -> str:
    """Return the name of a job's model at an endpoint; empty: its default one."""
    route = attempt.job.arguments.get("route") or {}
    if route.get("endpoint") == endpoint and route.get("model"):
        return str(route["model"])
    return (requested_model(attempt) or "").removeprefix(f"{endpoint}/")


class Runs:
    """How the pool runs its kinds of jobs."""

    def __init__(self, runner: JobRunner, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._settings, self._database = runner.settings, runner.database
        self._results = EndpointResults(runner.database)
        self._load_tools = partial(load_tools, runner.settings)
        self._priority_seconds = runner.settings.priority_seconds
        self.file_texts = FileTexts(ObjectStore.open(runner.settings))
        self._recaller = TurnRecall(
            lambda: load_embedder(runner.settings).embed,
            RecallCounter(runner.database),
            Compatibility(runner.database),
            sum(endpoint.slots for endpoint in endpoints),
        )

    def turn(self, attempt: Attempt) -> Outcome:
        """Answer a turn."""
        try:
            endpoint, model = self._endpoints.of_job(attempt.job), self._endpoints.model_of(attempt)
        except PermanentFailure as error:
            raise unserved(attempt.job, error) from None

        def run(engine: Engine) -> Outcome:
            return turn.run(
                engine,
                attempt,
                self._recaller,
                model.own_prompts,
                self._load_tools,
                self._priority_seconds,
                self.file_texts,
            )

        engine = engine_of_attempt(model.engine, attempt)
        guarded: Run = lambda running: run_guarded(  # noqa: E731 - one of two
            self._results, engine, running, run, partial(self._check_residency, running.job)
        )
        yields = is_batch(attempt.job.queue) and engine.continues
        return (endpoint.sharing.batch(guarded) if yields else endpoint.sharing.interactive(guarded))(attempt)

    def end_turn(
        self, attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None
    ) -> Ending:
        """End a turn that `turn` did not."""
        return turn.end(attempt, state, error, endpoint=self._endpoints.of_job(attempt.job).name)

    def with_engine(self, run: Callable[[Engine, Attempt], Outcome]) -> Run:
        """Return the pipeline of a kind that generates nothing."""

        def checked(attempt: Attempt) -> Outcome:
            self._check_residency(attempt.job)
            return run(self._endpoints.model_of(attempt).engine, attempt)

        return checked

    def _check_residency(self, job: Job) -> None:
        """Raise Moved or PermanentFailure for a job that may not leave the network, as its account says now."""
        with self._database.connection() as connection:
            check_dispatch(self._settings, connection, job)


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue: the slots of each endpoint.

    Raises ConfigurationError where no endpoint is left to this pool.
    """
    endpoints = Endpoints(runner.settings)
    if not list(endpoints):
        raise ConfigurationError("SANGHA_UPSTREAMS names no endpoint that the pool upstream could serve")
    for upstream, model in pool_models(runner.settings):
        takes_spilled = runner.settings.spill_target == (upstream, model)
        runner.serve(describe_upstream(upstream, model, takes_spilled=takes_spilled), endpoint_queue(upstream.name))
    runs = Runs(runner, endpoints)
    count_tokens = partial(token_count.run, file_texts=runs.file_texts)
    compact = partial(compact_context.run, file_texts=runs.file_texts)
    handlers = {
        "turn.run": Handler(runs.turn, runs.end_turn),
        "tokens.count": Handler(runs.with_engine(count_tokens), plain_ending),
        "context.compact": Handler(runs.with_engine(compact), plain_ending),
    }
    for kind, handler in handlers.items():
        runner.declare(kind, handler)
    return {
        queue: threads
        for endpoint in endpoints
        for queue, threads in _threads(endpoint_queue(endpoint.name), endpoint.slots).items()
    }


def _threads(queue: str, slots: int) -> dict[str, int]:
    return {queue: slots, batch_queue(queue): max(1, slots - 1), priority_queue(queue): priority_share(slots)}
