"""The clients of a fleet that run batches: upload a file, create the batch, wait for it, and read its files."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from bench.chaos.clients import FINAL, POLL_INTERVAL, FleetClient
from bench.chaos.retrying_client import HttpRequest
from bench.chaos.transcripts import BatchTranscript
from bench.harness.stack import WITHOUT_MEMORY

#: The lines of a batch, and the tokens of their answers.
LINES, LINE_TOKENS = (3, 40), (1, 8)

#: The share of batches that are cancelled once they are in progress.
CANCELLED = 0.2

BOUNDARY = "a-boundary-of-the-fleet"

ENDPOINT = "/v1/responses"


class BatchClient(FleetClient):
    """Runs batches, once no process of a version without them runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._begun = False

    def begin_batches(self) -> None:
        """Let it work from now on."""
        self._begun = True

    def work(self) -> None:
        if not self._begun:
            return
        transcript = self._begin()
        content = b"\n".join(map(self._request, transcript.lines))
        file_id = self._upload(transcript, content)
        if not file_id:
            return
        transcript.request = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
        self.create(transcript, "/v1/batches")
        if transcript.id:
            transcript.final = self._wait(transcript, cancels=self.rng.random() < CANCELLED)
            transcript.output = self._lines(transcript, transcript.final.get("output_file_id"))
            transcript.errors = self._lines(transcript, transcript.final.get("error_file_id"))
            transcript.ended = time.monotonic()

    def _begin(self) -> BatchTranscript:
        key = self.next_key()
        lines = [f"{key}-{number}" for number in range(self.rng.randrange(*LINES))]
        transcript = BatchTranscript("batch", self.name, self.account, key, {}, time.monotonic(), lines=lines)
        self.transcripts.append(transcript)
        return transcript

    def _request(self, custom_id: str) -> bytes:
        body = {
            "input": f"Tell me about {custom_id}.",
            "max_output_tokens": self.rng.randrange(*LINE_TOKENS),
            "residency": "local",
            **WITHOUT_MEMORY,
        }
        return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body})

    def _upload(self, transcript: BatchTranscript, content: bytes) -> str:
        """Upload the file. Returns its id; empty if it was refused."""
        form = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        body = form.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        reply = self.http.send(transcript, HttpRequest("POST", "/v1/files", body, headers))
        return str(reply.json().get("id") or "")

    def _wait(self, transcript: BatchTranscript, *, cancels: bool) -> Mapping[str, Any]:
        """Read the batch until it has ended; perhaps cancel it once its lines run."""
        path = f"/v1/batches/{transcript.id}"
        while current := self.read(transcript, path):
            if not transcript.statuses or transcript.statuses[-1] != current["status"]:
                transcript.statuses.append(current["status"])
            if current["status"] in FINAL:
                break
            if cancels and current["status"] == "in_progress" and not transcript.cancels:
                reply = self.http.send_once(HttpRequest("POST", f"{path}/cancel"))
                transcript.cancels.append(reply.recorded())
            self.deadline.check()
            time.sleep(POLL_INTERVAL * self.rng.uniform(0.5, 1.5))
        return current

    def _lines(self, transcript: BatchTranscript, file_id: str | None) -> list[Mapping[str, Any]]:
        """Return the lines of a file of results."""
        if file_id is None:
            return []
        reply = self.http.send(transcript, HttpRequest("GET", f"/v1/files/{file_id}/content"))
        lines: Sequence[bytes] = reply.body.splitlines() if reply.status == 200 else []
        return [orjson.loads(line) for line in lines]
