"""What the letters say: a subject and a plain text. Names that people gave themselves are shown as one short line."""

import re
from dataclasses import dataclass

#: What mail programs make a link of. Names of today have none; they may come from elsewhere, or from before.
LINKS = re.compile(r"://|www\.", re.IGNORECASE)

#: Characters of a name that somebody gave themselves: it stands in a letter to others.
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class EmailContent:
    """A letter without its envelope."""

    subject: str
    body: str


def verify_address(link: str) -> EmailContent:
    """To whoever signed up."""
    return EmailContent(
        "Confirm your e-mail address",
        f"""Hello,

somebody, and we hope that it was you, signed up to Sangha with this address.
Open this page within a day to confirm that it is yours. It asks for the password
that you chose, unless you are logged in there:

{link}

If it wasn't you, do nothing: nobody can use your address without this letter.
""",
    )


def signup_attempted(home: str, forgot: str) -> EmailContent:
    """To the owner of an address that somebody tried to sign up with."""
    return EmailContent(
        "You have an account already",
        f"""Hello,

somebody tried to sign up to Sangha with this address, which has an account already.
If it was you, log in instead:

{home}/

Should you have forgotten the password, set a new one:

{forgot}

If it wasn't you, there is nothing to do: nothing has changed.
""",
    )


def reset_password(link: str) -> EmailContent:
    """To whoever asked for it."""
    return EmailContent(
        "Set a new password",
        f"""Hello,

somebody, and we hope that it was you, asked to set a new password for Sangha.
Open this page within an hour to do so. It works once:

{link}

If it wasn't you, do nothing: your password stays as it is.
""",
    )


def password_changed(forgot: str) -> EmailContent:
    """To whose password it is."""
    return EmailContent(
        "Your password was changed",
        f"""Hello,

the password of your account at Sangha was changed just now.

If it wasn't you, set a new one at once, which also ends all sessions:

{forgot}
""",
    )


def invitation(account: str, inviter: str, role: str, link: str) -> EmailContent:
    """To somebody whom an account would like to have."""
    account, inviter = one_line(account), one_line(inviter)
    return EmailContent(
        f'You are invited to "{account}"',
        f"""Hello,

"{inviter}" invites you to join the account "{account}" at Sangha as {role}.
Open this page within a week to accept:

{link}

If you don't know what this is about, do nothing.
""",
    )


def one_line(name: str) -> str:
    """A name without line ends and control characters, and without what mail programs would make a link of."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    words = " ".join(LINKS.sub(" ", printable).split())
    return words if len(words) <= LONGEST_NAME else words[: LONGEST_NAME - 1] + "…"
