"""Render the subject and the plain text of each e-mail. Names that users chose are shown as one short line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.platform.texts import truncate

#: What mail programs turn into a link. Names are validated today; older ones and those of OIDC providers may have it.
LINKS = re.compile(r"://|www\.|/", re.IGNORECASE)

#: The dot of a host name, which some mail programs turn into a link without any of these.
HOST_DOT = re.compile(r"(?<=\w)\.(?=\w)")

#: Characters of a user's or an account's name, which is shown to other people.
MAX_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of an e-mail."""

    filename: str
    content_type: str
    content: bytes


def pdf_attachment(name: str, content: bytes) -> Attachment:
    """Return a PDF as an attachment. Slashes of a document's number become hyphens."""
    return Attachment(f"{name.replace('/', '-')}.pdf", "application/pdf", content)


@dataclass(frozen=True, slots=True)
class EmailContent:
    """The subject and the body of an e-mail, and a file to attach."""

    subject: str
    body: str
    attachment: Attachment | None = None


def verify_address(link: str) -> EmailContent:
    """Render the e-mail to a new user."""
    return EmailContent(
        "Confirm your e-mail address",
        f"""Hello,

You or somebody else signed up for Sangha with this e-mail address. To confirm it, open
this page within 24 hours. It asks for the password that you chose, unless you are
logged in:

{link}

If you did not sign up, ignore this e-mail. Nobody can use your address without it.
""",
    )


def signup_attempted(home: str, reset: str) -> EmailContent:
    """Render the e-mail to the owner of a verified address with which another signup was attempted."""
    return EmailContent(
        "You already have an account",
        f"""Hello,

You or somebody else tried to sign up for Sangha with this e-mail address, which already
has an account. Log in instead:

{home}/

If you have forgotten your password, set a new one:

{reset}

If this was not you, ignore this e-mail. Nothing has changed.
""",
    )


def reset_password(link: str) -> EmailContent:
    """Render the e-mail to a user who has forgotten their password."""
    return EmailContent(
        "Set a new password",
        f"""Hello,

You or somebody else asked to set a new password for your Sangha account. To set it,
open this page within an hour. The link works once:

{link}

If this was not you, ignore this e-mail. Your password has not changed.
""",
    )


def password_changed(reset: str, api_keys: Sequence[str] = ()) -> EmailContent:
    """Render the e-mail to a user whose password was changed; `api_keys` are those that stay valid."""
    return EmailContent(
        "Your password was changed",
        f"""Hello,

The password of your Sangha account has just been changed.

If this was not you, set a new password now, which also ends all sessions:

{reset}
{_remaining_keys(api_keys)}""",
    )


def invitation(account: str, inviter: str, role: str, link: str) -> EmailContent:
    """Render the e-mail that invites somebody to an account."""
    account, inviter = one_line(account), one_line(inviter)
    return EmailContent(
        f'You are invited to "{account}"',
        f"""Hello,

"{inviter}" invites you to join the account "{account}" on Sangha, with the role {role}.
To accept, open this page within 7 days:

{link}

If you do not know the sender, ignore this e-mail.
""",
    )


def invoice(number: str, seller: str, account: str, total: str, due: str, pdf: bytes) -> EmailContent:
    """Render the e-mail with an invoice. `due` is a sentence on what is to be paid."""
    return EmailContent(
        f"Invoice {number}",
        f"""Hello,

Attached is invoice {number} of {one_line(seller)} to the account "{one_line(account)}":
{total}, with tax. {due}

All invoices are at GET /billing/invoices, and each with the usage that it sums up.
""",
        pdf_attachment(f"invoice-{number}", pdf),
    )


def credit_note(number: str, invoice: str, seller: str, account: str, total: str, pdf: bytes) -> EmailContent:
    """Render the e-mail with a credit note of an invoice."""
    return EmailContent(
        f"Credit note {number}",
        f"""Hello,

Attached is credit note {number} of {one_line(seller)} to the account "{one_line(account)}":
{total}, with tax, of invoice {invoice}.

What was paid is given back to the payment method, or is a credit of the account.
""",
        pdf_attachment(f"credit-note-{number}", pdf),
    )


def spending_limit(account: str, key: str | None, amount: str, percent: int) -> EmailContent:
    """Render the e-mail to an admin about a spending limit, that of an API key or else the account's."""
    account = one_line(account)
    subject = f'the API key "{one_line(key)}"' if key is not None else "the account"
    consequence = "Requests that may cost more are rejected until the month ends.\n" if percent >= 100 else ""
    return EmailContent(
        f'{percent} % of a spending limit of "{account}" are spent',
        f"""Hello,

In the Sangha account "{account}", {percent} % of the spending limit of
{subject} are spent: {amount} in this calendar month (UTC).
{consequence}
GET /billing/spending_limits shows the limits and what is spent. PUT changes them.
""",
    )


def approval_requested(agent: str | None, tool: str, decide: str, expires: str) -> EmailContent:
    """Render the e-mail to a user whose turn waits for a decision. What the tool is called with is not shown."""
    subject = f'The agent "{one_line(agent)}"' if agent else "A response"
    return EmailContent(
        f"{subject} waits for your approval",
        f"""Hello,

{subject} wants to call the tool {one_line(tool)}, and waits for your decision
until {expires}.

The call with its arguments:

GET {decide}

To approve or deny it, send {{"approve": true}} or {{"approve": false}}:

POST {decide}
""",
    )


def report(title: str, account: str, link: str, until: str, file: Attachment | None) -> EmailContent:
    """Render the e-mail with a report. `link` is that of its file, which is kept until a date."""
    attached = "It is attached, and can be downloaded" if file else "It is too large for an e-mail. Download it"
    return EmailContent(
        f"{title} of {one_line(account)}",
        f"""Hello,

The report "{title}" of the Sangha account "{one_line(account)}" is ready.
{attached} until {until}:

GET {link}

You get it because a member of the account chose you as its recipient.
""",
        file,
    )


def payment_failed(number: str, amount: str) -> EmailContent:
    """Render the e-mail to an admin after a payment that is tried again."""
    return EmailContent(
        f"The payment of invoice {number} failed",
        f"""Hello,

The payment of {amount} for your invoice {number} failed. It is tried again in the
next days. Until then everything works as before.

Please check your payment method. If it no longer works, add another one.
""",
    )


def invoice_overdue(number: str, amount: str) -> EmailContent:
    """Render the e-mail to an admin about an invoice that is due, and whose bank transfer has not arrived."""
    return EmailContent(
        f"Invoice {number} is overdue",
        f"""Hello,

The payment of {amount} for your invoice {number} is due, and has not arrived.

Please transfer the amount with the number of the invoice. If you have done so in the last
days, there is nothing else to do.
""",
    )


def subscription_unpaid(number: str, amount: str) -> EmailContent:
    """Render the e-mail to an admin after the last payment that failed, or the last reminder."""
    return EmailContent(
        "Your subscription is unpaid",
        f"""Hello,

Your invoice {number} of {amount} was not paid in time. Your account now has
the limits of the free plan. Your data is kept.

Once the invoice is paid your subscription is active again.
""",
    )


def _remaining_keys(api_keys: Sequence[str]) -> str:
    if not api_keys:
        return ""
    lines = "\n".join(f"  - {one_line(key)}" for key in api_keys)
    return f"""
API keys stay valid, since applications use them. Revoke those that you do not know with
DELETE /v1/api_keys/ID, or all of them when you set a new password:

{lines}
"""


def one_line(name: str) -> str:
    """Return a name without line breaks, control characters and links, cut to MAX_NAME_LENGTH. Addresses stay."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    words = " ".join(word if "@" in word else HOST_DOT.sub(". ", word) for word in LINKS.sub(" ", printable).split())
    return truncate(words, MAX_NAME_LENGTH)


def webhook_disabled(endpoint: str, gone: bool) -> EmailContent:
    """Render the e-mail to an admin whose account's webhook endpoint was disabled. `endpoint` is its address here."""
    reason = "it has answered 410 Gone" if gone else "it has accepted no event for five days"
    return EmailContent(
        "A webhook endpoint was disabled",
        f"""Hello,

Sangha sends no more events to a webhook endpoint of your account, since
{reason}. The endpoint, and what it has answered:

GET {endpoint}
GET {endpoint}/deliveries

Events that were not delivered are kept for 30 days. To have them delivered,
enable the endpoint again:

POST {endpoint}/enable
""",
    )
