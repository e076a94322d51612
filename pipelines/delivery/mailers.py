"""How a letter leaves: over SMTP (RFC 5321), or into a folder where no mail server is named."""

import logging
import os
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from models.platform.errors import PermanentFailure, SanghaError
from models.platform.settings import Settings

log = logging.getLogger(__name__)

#: The port of each scheme (RFC 5321, 6409, 8314).
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}

#: Seconds that the server may take for one answer, and for the whole exchange: one that drips must not hold a thread.
PATIENCE = 15.0
LONGEST = 60.0

#: Days that letters stay in the mailbox: no link in them is good for longer.
KEPT_DAYS = 7


class NotDelivered(SanghaError):
    """The mail server did not take it now; it may do so later."""


class Mailer(Protocol):
    """Takes a message whose From, To and Message-ID are set."""

    def send(self, message: EmailMessage) -> None:
        """Raises NotDelivered when another try may help, and PermanentFailure when none will."""


def open_mailer(settings: Settings) -> Mailer:
    """What the settings ask for. Connects to nothing yet."""
    if settings.smtp_url is None:
        return FolderMailer(settings.home / "mailbox")
    url = urlsplit(settings.smtp_url)
    return SmtpMailer(
        scheme=url.scheme,
        host=url.hostname or "",
        port=url.port or PORTS[url.scheme],
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
    )


@dataclass(frozen=True)
class FolderMailer:
    """A folder with a file a letter, for an installation without a mail server. A repeat overwrites its first copy."""

    folder: Path

    def send(self, message: EmailMessage) -> None:
        """Write the file and tell where it is: whoever may read the log may not read the letter. Old letters go."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidy()
        name = str(message["Message-ID"]).strip("<>").partition("@")[0]
        path = self.folder / f"{name}.eml"
        draft = path.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(message.as_bytes(policy=SMTP.clone(linesep="\n", max_line_length=998)))
        draft.rename(path)
        log.info("a letter: %s  (%s)", path, message["Subject"])

    def _tidy(self) -> None:
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                    path.unlink()


@dataclass(frozen=True)
class SmtpMailer:
    """A mail server that relays for us. A connection a letter: letters are rare, and servers close idle ones."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""
    patience: float = PATIENCE
    longest: float = LONGEST

    def send(self, message: EmailMessage) -> None:
        """Hand it over. Nothing that a server says is told to anybody but operators, and no address is logged."""
        try:
            with self._connected() as server:
                _hand_over(server, message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            # Also a wrong password, a refused sender, a certificate out of date: an operator mends that, and it leaves.
            raise NotDelivered(f"the mail server {self.host}:{self.port}: {_plainly(error)}") from None

    def check(self) -> None:
        """Connect and log in, and send nothing. Raises NotDelivered."""
        try:
            with self._connected():
                pass
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered(_plainly(error)) from None

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        server = self._server()
        alarm = threading.Timer(self.longest, _hang_up, [server])
        alarm.daemon = True
        alarm.start()
        try:
            server.connect(self.host, self.port)
            if self.scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
            yield server
            _say_goodbye(server)
        finally:
            alarm.cancel()
            server.close()

    def _server(self) -> smtplib.SMTP:
        """A client that is not connected yet, so that the alarm stands before the first byte comes."""
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self.patience, context=ssl.create_default_context())
        else:
            server = smtplib.SMTP(timeout=self.patience)
        # Whose certificate TLS asks for. Only the constructor sets it, and that one would connect at once.
        vars(server)["_host"] = self.host
        return server


def _hand_over(server: smtplib.SMTP, message: EmailMessage) -> None:
    try:
        server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise _refused(next(iter(error.recipients.values()))[0]) from None
    except smtplib.SMTPDataError as error:
        raise _refused(error.smtp_code) from None
    except smtplib.SMTPNotSupportedError:
        raise PermanentFailure("The mail server can't take this address.", code="email_refused") from None


def _refused(status: int) -> SanghaError:
    """4yz asks to come again, 5yz is for good (RFC 5321, 4.2.1)."""
    if 500 <= status < 600:
        return PermanentFailure(f"The mail server refused it with {status}.", code="email_refused")
    return NotDelivered(f"the mail server answered {status}")


def _plainly(error: Exception) -> str:
    """The kind of error and its code: a server's own words may quote an address."""
    code = getattr(error, "smtp_code", None) or getattr(error, "errno", None)
    return type(error).__name__ + (f" {code}" if code else "")


def _hang_up(server: smtplib.SMTP) -> None:
    with suppress(OSError):
        if server.sock is not None:
            server.sock.shutdown(socket.SHUT_RDWR)


def _say_goodbye(server: smtplib.SMTP) -> None:
    """The letter is taken: whatever happens to the connection now is no reason to send it again."""
    with suppress(smtplib.SMTPException, OSError):
        server.quit()
