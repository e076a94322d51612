"""The actors of the inference pool. The engine is loaded in the worker process, before it claims any job."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from pipelines.chat import token_count, turn
from pipelines.chat.turn_recall import TurnRecall
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.inference.registry import load_engine
from pipelines.memory import suggest_facts
from pipelines.memory.meditation import suggest_insights
from pipelines.memory.recall_counter import RecallCounter
from tasks.job_runner import JobRunner


def declare_actors(runner: JobRunner) -> int:
    """Load the engine and declare the actors. Returns the number of threads: the engine's slots."""
    engine = load_engine(runner.settings)
    recaller = TurnRecall(lambda: load_embedder(runner.settings).embed, RecallCounter(runner.database), engine.slots)
    runner.declare("turn.run", Handler(run=partial(turn.run, engine, recall=recaller), end=turn.end))
    runner.declare("tokens.count", Handler(run=partial(token_count.run, engine), end=plain_ending))
    runner.declare("memory.fact", Handler(run=partial(suggest_facts.run, engine), end=plain_ending))
    runner.declare("memory.insight", Handler(run=partial(suggest_insights.run, engine), end=plain_ending))
    return engine.slots
