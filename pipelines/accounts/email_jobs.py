"""Letters: the e-mails that Sangha writes to people. Each is a job of the `delivery` pool.

A job carries ids only. Whom the letter goes to is found out, and the secret that its link may carry is made, when it is
sent (`pipelines.delivery`): no address and no secret stands in the arguments of a job.
"""

import time
from enum import StrEnum

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection

KIND = "email.send"


class EmailTemplate(StrEnum):
    """What is written, and by which id it finds whom it is written to.

    VERIFY_ADDRESS    user_id        a link that proves the address
    SIGNUP_ATTEMPTED  user_id        somebody tried to sign up with an address that has an owner: this is the owner
    RESET_PASSWORD    user_id        a link that sets a new password
    PASSWORD_CHANGED  user_id        so that whoever did not do it hears of it
    INVITATION        invitation_id  a link that makes somebody a member of an account
    """

    VERIFY_ADDRESS = "verify_address"
    SIGNUP_ATTEMPTED = "signup_attempted"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password, but a name
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    INVITATION = "invitation"


def enqueue_email(
    connection: Connection,
    letter: EmailTemplate,
    *,
    account_id: str = PLATFORM_ACCOUNT,
    user_id: str | None = None,
    invitation_id: str | None = None,
    at_most_every: int | None = None,
) -> None:
    """Enqueue a letter in the caller's transaction. After the commit, nudge the queue.

    `account_id` is whose job it is: the platform's own for what concerns a person alone, since an account's members see
    and may cancel the jobs of their account. Of those that come within `at_most_every` minutes, one is sent; of an
    invitation there is only one.
    """
    ids = {"user_id": user_id, "invitation_id": invitation_id}
    key = f"letter:{letter}:{invitation_id}" if invitation_id else None
    if at_most_every:
        key = f"letter:{letter}:{user_id}:{current_window(at_most_every)}"
    enqueue(connection, email_job(letter, account_id=account_id, unique_key=key, **ids))


def email_job(
    letter: EmailTemplate, *, account_id: str = PLATFORM_ACCOUNT, unique_key: str | None = None, **ids: str | None
) -> NewJob:
    """The job that sends a letter, for those who enqueue it in another way."""
    arguments = {"letter": letter.value} | {name: value for name, value in ids.items() if value}
    return NewJob(kind=KIND, account_id=account_id, arguments=arguments, unique_key=unique_key)


def current_window(minutes: int) -> int:
    """The number of the present stretch of so many minutes, for unique keys."""
    return int(time.time() // (60 * minutes))
