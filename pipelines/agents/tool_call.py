"""The pipeline of `tool.call`: call one tool of a server, and return what it answered."""

from models.jobs.attempt_context import Attempt, Outcome
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings


def run(settings: Settings, attempt: Attempt) -> Outcome:
    """Call a tool. Errors of its server are results, so that the model reads them."""
    raise PermanentFailure(f"No client can call the tool {attempt.job.arguments['name']}.")
