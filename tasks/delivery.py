"""The actors of the delivery pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.secrets import load_secret_key
from pipelines.accounts import password_reset
from pipelines.delivery import emails
from pipelines.delivery.mailers import open_mailer
from tasks.job_runner import JobRunner

#: Threads, of which an account uses four. Sending an e-mail is almost entirely waiting for the mail server.
THREADS = 5


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    sender = emails.EmailSender(runner.settings, load_secret_key(runner.settings), open_mailer(runner.settings))
    runner.declare("email.send", Handler(run=partial(emails.run, sender), end=plain_ending))
    runner.declare("password.forgotten", Handler(run=password_reset.run, end=password_reset.end_without_result))
    return {"delivery": THREADS}
