"""Send e-mails over SMTP (RFC 5321), or write them to a folder if no mail server is configured."""

import logging
import os
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
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

#: Seconds for one reply of the server, and for the whole exchange, so that a slow server does not hold a thread.
REPLY_TIMEOUT = 15.0
TOTAL_TIMEOUT = 60.0

#: Days that e-mails are kept in the folder; no link in them is valid for longer.
KEPT_DAYS = 7


class NotDelivered(SanghaError):
    """The mail server did not accept the e-mail; another attempt may succeed."""


class Mailer(Protocol):
    """Sends messages whose From, To and Message-ID are set."""

    def send(self, message: EmailMessage) -> None:
        """Send a message. Raises NotDelivered, after which another attempt may succeed, and PermanentFailure."""


def open_mailbox(settings: Settings) -> "FolderMailer | None":
    """Return the folder that replaces the mail server; None if there is one."""
    return FolderMailer(settings.home / "mailbox") if settings.smtp_url is None else None


def open_mailer(settings: Settings) -> Mailer:
    """Return the mailer that the settings select. Does not connect yet."""
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
    """Writes each e-mail to a file, for an installation without a mail server. A repeated e-mail replaces its file."""

    folder: Path

    def send(self, message: EmailMessage) -> None:
        """Write the file and log its path; the content has secrets. Deletes files older than KEPT_DAYS."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.delete_old()
        name = str(message["Message-ID"]).strip("<>").partition("@")[0]
        path = self.folder / f"{name}.eml"
        draft = path.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(message.as_bytes(policy=SMTP.clone(linesep="\n", max_line_length=998)))
        draft.rename(path)
        log.info("e-mail written to %s", path)  # without the subject, which may have the name of an account

    def delete(self, job_ids: Iterable[str]) -> None:
        """Delete the e-mails of some jobs. Missing ones are ignored."""
        if self.folder.is_dir():
            for job_id in job_ids:
                (self.folder / f"{job_id}.eml").unlink(missing_ok=True)

    def delete_old(self) -> None:
        """Delete e-mails older than KEPT_DAYS."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                    path.unlink()


@dataclass(frozen=True)
class SmtpMailer:
    """Sends over a mail server. Connects for each e-mail, since they are rare and servers close idle connections."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""
    reply_timeout: float = REPLY_TIMEOUT
    total_timeout: float = TOTAL_TIMEOUT

    def send(self, message: EmailMessage) -> None:
        """Send a message. Errors contain no text of the server's reply, which may quote an address."""
        try:
            with self._connected() as server:
                _send(server, message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            # A wrong password, a rejected sender or an expired certificate, too: an operator can correct these.
            raise NotDelivered(f"mail server {self.host}:{self.port}: {_describe(error)}") from None

    def check(self) -> None:
        """Connect and log in without sending. Raises NotDelivered."""
        try:
            with self._connected():
                pass
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered(_describe(error)) from None

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        server = self._server()
        alarm = threading.Timer(self.total_timeout, _shut_down, [server])
        alarm.daemon = True
        alarm.start()
        try:
            server.connect(self.host, self.port)
            if self.scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
            yield server
            _quit(server)
        finally:
            alarm.cancel()
            server.close()

    def _server(self) -> smtplib.SMTP:
        """Return an unconnected client, so that the total timeout covers connecting, too."""
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self.reply_timeout, context=ssl.create_default_context())
        else:
            server = smtplib.SMTP(timeout=self.reply_timeout)
        # The host whose certificate TLS verifies. Only a constructor that connects at once sets it.
        vars(server)["_host"] = self.host
        return server


def _send(server: smtplib.SMTP, message: EmailMessage) -> None:
    try:
        server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise _rejection(next(iter(error.recipients.values()))[0]) from None
    except smtplib.SMTPDataError as error:
        raise _rejection(error.smtp_code) from None
    except smtplib.SMTPNotSupportedError:
        raise PermanentFailure("The mail server does not support this e-mail address.", code="email_refused") from None


def _rejection(status: int) -> SanghaError:
    """Return the error for a reply code: 5yz is permanent, 4yz is not (RFC 5321, 4.2.1)."""
    if 500 <= status < 600:
        return PermanentFailure(f"The mail server rejected the e-mail with status {status}.", code="email_refused")
    return NotDelivered(f"the mail server answered with status {status}")


def _describe(error: Exception) -> str:
    """Return the error's type and code; the server's text may quote an address."""
    code = getattr(error, "smtp_code", None) or getattr(error, "errno", None)
    return type(error).__name__ + (f" {code}" if code else "")


def _shut_down(server: smtplib.SMTP) -> None:
    with suppress(OSError):
        if server.sock is not None:
            server.sock.shutdown(socket.SHUT_RDWR)


def _quit(server: smtplib.SMTP) -> None:
    """End the session. The e-mail has been accepted, so an error here must not send it again."""
    with suppress(smtplib.SMTPException, OSError):
        server.quit()
