"""Write the number of a worker's running jobs into its pod, so that Kubernetes removes idle pods first.

A ReplicaSet that scales down removes the pods with the smallest annotation `controller.kubernetes.io/pod-deletion-cost`
first. Without it, it may remove a pod that answers eight turns and leave one that is idle. It is a hint only: the jobs
of a pod that is removed are released and continue elsewhere.
"""

import json
import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from models.platform.settings import Settings

log = logging.getLogger(__name__)

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

#: Seconds between two looks. Each change is a request to the API server, which all pods share.
INTERVAL = 15.0

#: Seconds for one request.
TIMEOUT = 5.0

#: Where Kubernetes mounts the token, which it renews, and the certificate of its API server.
ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, and how to reach the API server that knows it."""

    name: str
    namespace: str
    host: str
    port: int
    account: Path = ACCOUNT_FOLDER

    @property
    def path(self) -> str:
        """The path of the pod's object."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def annotate(self, value: int) -> None:
        """Set the annotation. Raises OSError and HTTPException."""
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        headers = {
            "Authorization": f"Bearer {(self.account / 'token').read_text().strip()}",
            "Content-Type": "application/merge-patch+json",
        }
        body = json.dumps({"metadata": {"annotations": {ANNOTATION: str(value)}}})
        with closing(HTTPSConnection(self.host, self.port, timeout=TIMEOUT, context=context)) as connection:
            connection.request("PATCH", self.path, body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"{response.status} {response.reason}")


def own_pod(settings: Settings) -> Pod | None:
    """Return the pod of this process; None outside Kubernetes, or where POD_NAME and POD_NAMESPACE are unset."""
    host = settings.kubernetes_service_host
    if not (settings.pod_name and settings.pod_namespace and host):
        return None
    return Pod(settings.pod_name, settings.pod_namespace, host, settings.kubernetes_service_port)


class PodDeletionCost:
    """A thread that writes a number into the pod whenever it has changed, at most every `interval` seconds."""

    def __init__(self, pod: Pod, count: Callable[[], int], *, interval: float = INTERVAL) -> None:
        self._pod, self._count, self._interval = pod, count, interval
        self._written = 0  # that of a pod without the annotation
        self._failed = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-deletion-cost", daemon=True)

    def start(self) -> "PodDeletionCost":
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop without waiting for a request: the pod is being removed."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._write()

    def _write(self) -> None:
        count = self._count()
        if count == self._written:
            return
        try:
            self._pod.annotate(count)
        except (OSError, HTTPException) as error:
            self._log_once(error)
        else:
            self._written, self._failed = count, False

    def _log_once(self, error: Exception) -> None:
        """Log the first of consecutive failures: the next one has the same cause."""
        if not self._failed:
            log.warning("Cannot write %s into pod %s: %s", ANNOTATION, self._pod.name, error)
        self._failed = True
