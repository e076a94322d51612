"""The actors of the inference pool. The engine is loaded here, in the process that uses it, before any claim."""

from functools import partial

from models.running import Handler, plain_ending
from pipelines.chat import count, turn
from pipelines.chat.recaller import Recaller
from pipelines.inference.embedder import load_embedder
from pipelines.inference.loading import load_engine
from pipelines.memory import facts
from pipelines.memory.meditation import reflecting
from pipelines.memory.noting import Noting
from tasks.workshop import Workshop


def declare(workshop: Workshop) -> int:
    """Declare the actors; returns how many may run at once: the engine's slots."""
    engine = load_engine(workshop.settings)
    recaller = Recaller(lambda: load_embedder(workshop.settings).embed, Noting(workshop.database), engine.slots)
    workshop.declare("turn.run", Handler(run=partial(turn.run, engine, recall=recaller), end=turn.end))
    workshop.declare("tokens.count", Handler(run=partial(count.run, engine), end=plain_ending))
    workshop.declare("memory.fact", Handler(run=partial(facts.run, engine), end=plain_ending))
    workshop.declare("memory.insight", Handler(run=partial(reflecting.run, engine), end=plain_ending))
    return engine.slots
