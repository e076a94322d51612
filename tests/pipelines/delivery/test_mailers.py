"""Given mail servers that accept, reject, hang or fail, then an e-mail is sent or the error says whether to retry."""

import contextlib
import os
import socket
import stat
import threading
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from ops.log_formats import TextFormatter
from ops.logs import CONSOLE_PATTERN
from pipelines.delivery.mailers import FolderMailer, NotDelivered, SmtpMailer, open_mailer


class Inbox:
    """The handler of a mail server: records e-mails and answers as a test sets."""

    def __init__(self) -> None:
        self.envelopes = []
        self.recipient = self.data = "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server, session, envelope):
        self.envelopes.append(envelope)
        return self.data


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def serve_mail(inbox):
    """`serve_mail(…)` → the port of a mail server with the inbox as its handler."""
    with contextlib.ExitStack() as stack:

        def serve(**options):
            controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), **options)
            controller.start()
            stack.callback(controller.stop)
            return controller.port

        yield serve


@pytest.fixture
def message():
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = "Sangha <sangha@example.com>", "someone@example.com"
    message["Subject"], message["Message-ID"] = "Hello", "<job_1@example.com>"
    message.set_content("Good day.\n")
    return message


def mailer(port, **options):
    return SmtpMailer(scheme="smtp", host="127.0.0.1", port=port, **options)


def test_an_email_is_sent(serve_mail, inbox, message):
    mailer(serve_mail()).send(message)

    (envelope,) = inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("sangha@example.com", ["someone@example.com"])
    assert b"Message-ID: <job_1@example.com>" in envelope.content


def test_user_and_password_are_percent_decoded_from_the_url(serve_mail, inbox, message, tmp_path):
    login_data = []

    def authenticate(server, session, envelope, mechanism, data):
        login_data.append(data)
        return AuthResult(success=data == LoginPassword(b"me@example.com", b"p@ss/word"), handled=False)

    port = serve_mail(authenticator=authenticate, auth_require_tls=False)
    url = f"smtp://me%40example.com:p%40ss%2Fword@127.0.0.1:{port}"
    open_mailer(Settings(data_dir=tmp_path, smtp_url=url)).send(message)

    assert len(inbox.envelopes) == 1
    # A wrong password is retried, since an operator can correct it.
    with pytest.raises(NotDelivered, match="SMTPAuthenticationError 535"):
        mailer(port, user="me@example.com", password="wrong").send(message)
    assert len(login_data) >= 2


@pytest.mark.parametrize(("where", "answer"), [("recipient", "550 No such user"), ("data", "554 It is spam")])
def test_a_5xx_reply_is_permanent(serve_mail, inbox, message, where, answer):
    setattr(inbox, where, answer)

    with pytest.raises(PermanentFailure, match=answer[:3]) as error:
        mailer(serve_mail()).send(message)

    assert error.value.code == "email_refused"
    assert answer[4:] not in error.value.message


@pytest.mark.parametrize(("where", "answer"), [("recipient", "451 Greylisted"), ("data", "452 Disk full")])
def test_a_4xx_reply_is_retried(serve_mail, inbox, message, where, answer):
    setattr(inbox, where, answer)

    with pytest.raises(NotDelivered, match=answer[:3]):
        mailer(serve_mail()).send(message)


def test_a_check_sends_nothing(serve_mail, inbox):
    mailer(serve_mail()).check()

    assert inbox.envelopes == []
    with pytest.raises(NotDelivered):
        mailer(free_port()).check()


def test_an_unreachable_server_is_retried(message):
    with pytest.raises(NotDelivered):
        mailer(free_port()).send(message)


def test_without_the_configured_tls_nothing_is_sent(serve_mail, inbox, message):
    port = serve_mail()

    with pytest.raises(NotDelivered):
        SmtpMailer(scheme="smtp+starttls", host="127.0.0.1", port=port, user="u", password="p").send(message)

    assert inbox.envelopes == []


@pytest.mark.parametrize(("scheme", "option"), [("smtps", "ssl_context"), ("smtp+starttls", "tls_context")])
def test_tls_verifies_the_servers_certificate(serve_mail, inbox, message, trusted, monkeypatch, scheme, option):
    port = serve_mail(**{option: trusted})

    SmtpMailer(scheme=scheme, host="127.0.0.1", port=port).send(message)

    assert len(inbox.envelopes) == 1
    # An untrusted certificate is rejected.
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotDelivered, match="SSLCertVerificationError"):
        SmtpMailer(scheme=scheme, host="127.0.0.1", port=port).send(message)
    assert len(inbox.envelopes) == 1


@pytest.mark.parametrize("drip", [b"", b"220-and more\r\n"])
def test_a_silent_or_slow_server_times_out(message, drip):
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        done = threading.Event()

        def serve():
            connection, _ = listener.accept()
            stack.enter_context(connection)
            with contextlib.suppress(OSError):
                while not done.wait(0.05):
                    connection.sendall(drip)

        thread = threading.Thread(target=serve)
        thread.start()
        start = time.monotonic()

        with pytest.raises(NotDelivered):
            mailer(listener.getsockname()[1], reply_timeout=0.3, total_timeout=0.6).send(message)

        assert time.monotonic() - start < 3
        done.set()
        thread.join(5)


def test_without_a_server_an_email_is_a_private_file(tmp_path, message, caplog):
    mailbox = open_mailer(Settings(data_dir=tmp_path))

    assert isinstance(mailbox, FolderMailer)
    with caplog.at_level("INFO"):
        mailbox.send(message)
        mailbox.send(message)

    (file,) = (tmp_path / "mailbox").iterdir()
    assert file.name == "job_1.eml"
    assert "Good day." in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    # `sangha up` shows this log line.
    line = TextFormatter().format(caplog.records[-1])
    assert CONSOLE_PATTERN.search(line)
    assert str(file) in line
    assert "Good day." not in caplog.text


def test_old_files_are_deleted(tmp_path, message):
    old = tmp_path / "old.eml"
    old.write_text("Good day.")
    os.utime(old, (0, 0))

    FolderMailer(tmp_path).send(message)

    assert [path.name for path in tmp_path.iterdir()] == ["job_1.eml"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
