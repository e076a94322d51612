"""Given a mail server of each temper, when a letter is sent, then it arrives, or it is known whether to try again."""

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
from ops.logs import CONSOLE_PATTERN, FORMAT, OneLine
from pipelines.delivery.mailers import FolderMailer, NotDelivered, SmtpMailer, open_mailer


class Inbox:
    """What a mail server was given, and what it answers."""

    def __init__(self) -> None:
        self.letters = []
        self.recipient = self.data = "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server, session, envelope):
        self.letters.append(envelope)
        return self.data


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def serve_mail(inbox):
    """`serve_mail(…)` → the port of a mail server that fills the inbox."""
    with contextlib.ExitStack() as stack:

        def serve(**options):
            controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), **options)
            controller.start()
            stack.callback(controller.stop)
            return controller.port

        yield serve


@pytest.fixture
def letter():
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = "Sangha <sangha@example.com>", "someone@example.com"
    message["Subject"], message["Message-ID"] = "Hello", "<job_1@example.com>"
    message.set_content("Good day.\n")
    return message


def mailer(port, **options):
    return SmtpMailer(scheme="smtp", host="127.0.0.1", port=port, **options)


def test_a_letter_arrives(serve_mail, inbox, letter):
    mailer(serve_mail()).send(letter)

    (arrived,) = inbox.letters
    assert (arrived.mail_from, arrived.rcpt_tos) == ("sangha@example.com", ["someone@example.com"])
    assert b"Message-ID: <job_1@example.com>" in arrived.content


def test_user_and_password_come_percent_decoded_from_the_url(serve_mail, inbox, letter, tmp_path):
    shown = []

    def authenticate(server, session, envelope, mechanism, data):
        shown.append(data)
        return AuthResult(success=data == LoginPassword(b"me@example.com", b"p@ss/word"), handled=False)

    port = serve_mail(authenticator=authenticate, auth_require_tls=False)
    url = f"smtp://me%40example.com:p%40ss%2Fword@127.0.0.1:{port}"
    open_mailer(Settings(data_dir=tmp_path, smtp_url=url)).send(letter)

    assert len(inbox.letters) == 1
    # And a wrong password is the operator's to mend: the letter waits
    with pytest.raises(NotDelivered, match="SMTPAuthenticationError 535"):
        mailer(port, user="me@example.com", password="wrong").send(letter)
    assert len(shown) >= 2


@pytest.mark.parametrize(("where", "answer"), [("recipient", "550 No such user"), ("data", "554 It is spam")])
def test_a_refusal_is_for_good(serve_mail, inbox, letter, where, answer):
    setattr(inbox, where, answer)

    with pytest.raises(PermanentFailure, match=answer[:3]) as refusal:
        mailer(serve_mail()).send(letter)

    assert refusal.value.code == "email_refused"
    assert answer[4:] not in refusal.value.message


@pytest.mark.parametrize(("where", "answer"), [("recipient", "451 Greylisted"), ("data", "452 Disk full")])
def test_come_again_is_another_try(serve_mail, inbox, letter, where, answer):
    setattr(inbox, where, answer)

    with pytest.raises(NotDelivered, match=answer[:3]):
        mailer(serve_mail()).send(letter)


def test_the_doctors_look_sends_nothing(serve_mail, inbox):
    mailer(serve_mail()).check()

    assert inbox.letters == []
    with pytest.raises(NotDelivered):
        mailer(free_port()).check()


def test_no_server_is_another_try(letter):
    with pytest.raises(NotDelivered):
        mailer(free_port()).send(letter)


def test_no_tls_where_it_is_asked_for_is_another_try_and_nothing_is_sent(serve_mail, inbox, letter):
    port = serve_mail()

    with pytest.raises(NotDelivered):
        SmtpMailer(scheme="smtp+starttls", host="127.0.0.1", port=port, user="u", password="p").send(letter)

    assert inbox.letters == []


@pytest.mark.parametrize(("scheme", "option"), [("smtps", "ssl_context"), ("smtp+starttls", "tls_context")])
def test_tls_is_spoken_with_a_server_that_is_who_it_says(
    serve_mail, inbox, letter, trusted, monkeypatch, scheme, option
):
    port = serve_mail(**{option: trusted})

    SmtpMailer(scheme=scheme, host="127.0.0.1", port=port).send(letter)

    assert len(inbox.letters) == 1
    # And with nobody else
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotDelivered, match="SSLCertVerificationError"):
        SmtpMailer(scheme=scheme, host="127.0.0.1", port=port).send(letter)
    assert len(inbox.letters) == 1


@pytest.mark.parametrize("drip", [b"", b"220-and more\r\n"])
def test_a_server_that_is_silent_or_drips_holds_nobody_for_long(letter, drip):
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
        began = time.monotonic()

        with pytest.raises(NotDelivered):
            mailer(listener.getsockname()[1], patience=0.3, longest=0.6).send(letter)

        assert time.monotonic() - began < 3
        done.set()
        thread.join(5)


def test_without_a_server_a_letter_is_a_file_that_only_we_can_read(tmp_path, letter, caplog):
    mailbox = open_mailer(Settings(data_dir=tmp_path))

    assert isinstance(mailbox, FolderMailer)
    with caplog.at_level("INFO"):
        mailbox.send(letter)
        mailbox.send(letter)

    (file,) = (tmp_path / "mailbox").iterdir()
    assert file.name == "job_1.eml"
    assert "Good day." in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    # The one line that `sangha up` shows of it
    line = OneLine(FORMAT, datefmt="%Y-%m-%d %H:%M:%S").format(caplog.records[-1])
    assert CONSOLE_PATTERN.search(line)
    assert str(file) in line
    assert "Good day." not in caplog.text


def test_old_letters_leave_the_mailbox(tmp_path, letter):
    old = tmp_path / "old.eml"
    old.write_text("Good day.")
    os.utime(old, (0, 0))

    FolderMailer(tmp_path).send(letter)

    assert [path.name for path in tmp_path.iterdir()] == ["job_1.eml"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
