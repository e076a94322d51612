"""How much work a model has, and how long a turn that is sent now would wait."""

from typing_extensions import TypedDict

from models.serving.forecast import predicted_wait
from models.serving.served_models import ServedModel
from models.serving.state import ServingState


class ModelServing(TypedDict):
    """The interactive turns of a model; those of an endpoint share the endpoint's slots.

    `predicted_wait` is in seconds, of a turn of an account that has no other ones; null where it is unknown, as without
    a worker. `slots` are those of live workers, and `context` is in tokens.
    """

    predicted_wait: float | None
    queued: int
    running: int
    slots: int
    context: int


def model_serving(state: ServingState, model: ServedModel) -> ModelServing:
    """Return how much work a model has."""
    queue = state.queue(model.queue)
    wait = predicted_wait(queue)
    return {
        "predicted_wait": None if wait is None else round(wait, 1),
        "queued": queue.waiting,
        "running": queue.running,
        "slots": model.slots,
        "context": model.description.context,
    }
