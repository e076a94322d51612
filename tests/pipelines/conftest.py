"""Fixtures that run jobs without a queue, and a trusted TLS server."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from models.jobs import attempts
from models.jobs.attempt_context import Attempt, open_attempt
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob, enqueue
from models.journal.writer import JournalWriter
from models.platform.database import Database
from models.platform.ids import new_id

Begin = Callable[[NewJob], Attempt]
Settle = Callable[[Attempt, Ending], None]


@pytest.fixture
def begin(database: Database, redis_client: redis.Redis) -> Iterator[Begin]:
    """`begin(job)` → its next attempt; enqueues the job if it does not exist."""
    writer = JournalWriter(redis_client, lambda *claim: True)

    def begin(job: NewJob) -> Attempt:
        with database.transaction() as connection:
            if connection.execute("SELECT 1 FROM jobs WHERE id = %s", (job.id,)).fetchone() is None:
                enqueue(connection, job)
            connection.execute(
                "UPDATE jobs SET run_at = now(), state = 'queued' WHERE id = %s AND state <> 'completed'", (job.id,)
            )
        with database.connection() as connection:
            claimed = attempts.claim(connection, job.id, message_id=new_id("message"), worker=new_id("worker"))
        assert claimed is not None
        return open_attempt(claimed, database, redis_client, writer)

    yield begin
    writer.stop()


@pytest.fixture
def settle(database: Database) -> Settle:
    """`settle(attempt, ending)` ends the job."""

    def settle(attempt: Attempt, ending: Ending) -> None:
        with database.transaction() as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.journal.archivable(), *ending.events])

    return settle


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS context of a local server whose certificate this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = tmp_path / "chain.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    return context
