"""A worker writes the number of its running jobs into its pod."""

import datetime
import http.server
import ipaddress
import json
import logging
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.harness.waiting import wait_until
from models.platform.settings import Settings
from tasks.pod_deletion_cost import ANNOTATION, Pod, PodDeletionCost, own_pod

URL = "/api/v1/namespaces/ai/pods/sangha-worker-tools-1"


def write_certificate(folder):
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(host, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class ApiServer(http.server.ThreadingHTTPServer):
    """An API server with one pod. It answers with `status`."""

    def __init__(self, account):
        super().__init__(("127.0.0.1", 0), Request)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(account / "ca.crt", account / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.status, self.requests, self.annotations = 200, [], []
        self.answered = threading.Condition()

    def wait_for(self, count):
        """Wait until so many requests were answered."""
        with self.answered:
            assert self.answered.wait_for(lambda: len(self.requests) >= count, 20)


class Request(http.server.BaseHTTPRequestHandler):
    def do_PATCH(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        with self.server.answered:
            self.server.requests.append((self.path, self.headers["Content-Type"], self.headers["Authorization"]))
            if self.server.status == 200:
                self.server.annotations.append(body["metadata"]["annotations"])
            self.server.answered.notify_all()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def account(tmp_path):
    """The folder of a service account."""
    write_certificate(tmp_path)
    (tmp_path / "token").write_text("first\n")
    return tmp_path


@pytest.fixture
def api_server(account):
    server = ApiServer(account)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pod(api_server, account):
    return Pod("sangha-worker-tools-1", "ai", "127.0.0.1", api_server.server_port, account)


@pytest.fixture
def start(pod):
    """Starts the thread with a short interval; it is stopped at the end."""
    started = []

    def start(count):
        started.append(PodDeletionCost(pod, count, interval=0.01).start())
        return started[0]

    yield start
    for each in started:
        each.stop()
        each._thread.join(20)


def test_the_number_of_jobs_is_written_whenever_it_changes(api_server, account, start):
    # Given a worker without jobs, which needs no annotation
    jobs, looks = [], []

    def count():
        looks.append(None)
        return len(jobs)

    start(count)
    wait_until(lambda: len(looks) > 3)
    assert api_server.requests == []

    # When it runs two jobs, and Kubernetes renews the token before they end
    jobs.extend(["a", "b"])
    api_server.wait_for(1)
    (account / "token").write_text("second\n")
    jobs.clear()
    api_server.wait_for(2)

    # Then each number was written once
    assert api_server.annotations == [{ANNOTATION: "2"}, {ANNOTATION: "0"}]
    merge = "application/merge-patch+json"
    assert api_server.requests == [(URL, merge, "Bearer first"), (URL, merge, "Bearer second")]


def test_a_refusal_is_logged_once_and_the_number_written_later(api_server, start, caplog):
    # Given an API server that refuses
    caplog.set_level(logging.WARNING)
    api_server.status = 403
    start(lambda: 3)
    api_server.wait_for(3)

    # When it accepts again
    api_server.status = 200
    wait_until(lambda: api_server.annotations)

    # Then
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "sangha-worker-tools-1" in warning
    assert "403" in warning
    assert api_server.annotations == [{ANNOTATION: "3"}]


def test_a_server_with_another_certificate_gets_no_token(api_server, account, pod, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_certificate(other)
    (account / "ca.crt").write_bytes((other / "ca.crt").read_bytes())

    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        pod.annotate(1)

    assert api_server.requests == []


def test_the_pod_is_that_of_the_environment():
    settings = Settings(
        pod_name="p", pod_namespace="n", kubernetes_service_host="fd00::1", kubernetes_service_port=6443
    )

    assert own_pod(settings) == Pod("p", "n", "fd00::1", 6443)


@pytest.mark.parametrize("unset", ["pod_name", "pod_namespace", "kubernetes_service_host"])
def test_there_is_no_pod_without_its_name_or_kubernetes(unset):
    values = {"pod_name": "p", "pod_namespace": "n", "kubernetes_service_host": "10.0.0.1", unset: None}

    assert own_pod(Settings(**values)) is None
