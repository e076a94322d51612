"""The actors of the delivery pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from models.platform.secrets import load_secret_key
from pipelines.accounts import password_reset
from pipelines.delivery import emails, webhook_delivery, webhook_replay
from pipelines.delivery.mailers import open_mailer
from pipelines.delivery.webhook_delivery import WebhookSender
from tasks.job_runner import JobRunner

#: Threads, of which an account uses four. Sending an e-mail is almost entirely waiting for the mail server.
THREADS = 5

#: Threads for first attempts of webhooks, and for all others; an endpoint uses a part of them (`models.jobs.windows`).
WEBHOOK_THREADS = 32


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    settings = runner.settings
    objects = ObjectStore.open(settings)
    sender = emails.EmailSender(settings, load_secret_key(settings), open_mailer(settings), objects)
    runner.declare("email.send", Handler(run=partial(emails.run, sender), end=plain_ending))
    runner.declare("password.forgotten", Handler(run=password_reset.run, end=password_reset.end_without_result))
    deliver = partial(webhook_delivery.run, WebhookSender.open(settings))
    runner.declare("webhook.deliver", Handler(run=deliver, end=webhook_delivery.end))
    runner.declare("webhook.replay", Handler(run=webhook_replay.run, end=plain_ending))
    return {"delivery": THREADS, "webhooks": WEBHOOK_THREADS, "webhooks_batch": WEBHOOK_THREADS}
