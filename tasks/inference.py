"""The actors of the inference pool. The engine is loaded in the worker process, before it claims any job."""

from dataclasses import replace
from functools import partial

from models.jobs.attempt_context import Attempt, Handler, Outcome, plain_ending
from models.jobs.catalogue import batch_queue, is_batch, priority_queue, priority_share
from models.platform.compatibility import Compatibility
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.serving.queues import model_queue
from pipelines.agents.server_tools import load_tools
from pipelines.chat import compact_context, token_count, turn
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.job_model import check_served
from pipelines.chat.job_requests import engine_of_attempt
from pipelines.chat.turn_recall import TurnRecall
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.inference.own_prompts import OwnPrompts
from pipelines.inference.registry import default_model, describe, load_engine
from pipelines.memory import suggest_facts
from pipelines.memory.meditation import suggest_insights
from pipelines.memory.recall_counter import RecallCounter
from pipelines.routing.residency import check_dispatch
from tasks.job_runner import JobRunner
from tasks.slot_sharing import Run, SlotSharing


def _by_queue(sharing: SlotSharing, run: Run, *, yields: bool) -> Run:
    """Let turns in the batch queue yield their slots, if the engine continues the text of one that did."""
    interactive, batch = sharing.interactive(run), sharing.batch(run)
    return lambda attempt: batch(attempt) if yields and is_batch(attempt.job.queue) else interactive(attempt)


def _of_model(model: str, run: Run) -> Run:
    """Run only the jobs of a model, and move those of others to the queues of these."""

    def run_checked(attempt: Attempt) -> Outcome:
        check_served(attempt, model)
        return run(attempt)

    return run_checked


def _at_home(settings: Settings, run: Run) -> Run:
    """Run only jobs whose account lets the engine have its memories."""

    def run_checked(attempt: Attempt) -> Outcome:
        with attempt.database.connection() as connection:
            check_dispatch(settings, connection, attempt.job)
        return run(attempt)

    return run_checked


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Load the engine and declare the actors. Returns the number of threads by queue: the engine's slots."""
    engine = load_engine(runner.settings)
    queue = model_queue(engine.name, default_model(runner.settings))
    description = replace(
        describe(runner.settings), context=engine.context, slots=engine.slots, continues=engine.continues
    )
    runner.serve(description, queue)
    recaller = TurnRecall(
        lambda: load_embedder(runner.settings).embed,
        RecallCounter(runner.database),
        Compatibility(runner.database),
        engine.slots,
    )
    sharing = SlotSharing(engine.slots)
    if engine.continues:
        sharing.watch_lanes(runner.database)
    own_prompts, tools = OwnPrompts(engine), partial(load_tools, runner.settings)
    file_texts = FileTexts(ObjectStore.open(runner.settings))
    count_tokens = partial(token_count.run, engine, file_texts=file_texts)
    compact = partial(compact_context.run, engine, file_texts=file_texts)

    def run_turn(attempt: Attempt) -> Outcome:
        own_engine = engine_of_attempt(engine, attempt)
        return turn.run(own_engine, attempt, recaller, own_prompts, tools, runner.settings.priority_seconds, file_texts)

    end_turn = partial(turn.end, endpoint=engine.endpoint)
    handlers = {
        "turn.run": Handler(_of_model(engine.name, _by_queue(sharing, run_turn, yields=engine.continues)), end_turn),
        "tokens.count": Handler(_of_model(engine.name, count_tokens), plain_ending),
        "context.compact": Handler(_of_model(engine.name, compact), plain_ending),
        "memory.fact": Handler(
            sharing.batch(_at_home(runner.settings, partial(suggest_facts.run, engine))), plain_ending
        ),
        "memory.insight": Handler(
            sharing.batch(_at_home(runner.settings, partial(suggest_insights.run, engine))), plain_ending
        ),
    }
    for kind, handler in handlers.items():
        runner.declare(kind, handler)
    return {
        queue: engine.slots,
        batch_queue(queue): max(1, engine.slots - 1),
        priority_queue(queue): priority_share(engine.slots),
    }
