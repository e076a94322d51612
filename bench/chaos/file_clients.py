"""The clients of a fleet that upload files, whole and in parts, read them back, and delete some."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from bench.chaos.clients import FleetClient
from bench.chaos.retrying_client import WORK_TIMEOUT, HttpRequest, Reply
from bench.chaos.transcripts import ClientTranscript, RecordedReply

#: Bytes of files: mostly small, sometimes of several objects.
SIZES = (1, 1_000, 1_000, 70_000, 70_000, 300_000, 300_000, 9_000_000)

#: The share of files that are uploaded in parts, and of those that are deleted; larger ones than KEPT_BYTES all are,
#: since an account may keep 64 MiB.
IN_PARTS, DELETED, KEPT_BYTES = 0.4, 0.7, 500_000

#: The statuses of a file that was read back as it was sent, differently, or not at all, and of one that was deleted.
SAME, OTHER, MISSING, GONE = "same", "other", "missing", "deleted"

BOUNDARY = "chaos-boundary"


class FileClient(FleetClient):
    """Uploads files, once no process of a version without them runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._begun = False

    def begin_files(self) -> None:
        """Let it work from now on."""
        self._begun = True

    def work(self) -> None:
        if not self._begun:
            return
        content = self.rng.randbytes(self.rng.choice(SIZES))
        sent = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        transcript = self.begin("file", sent)
        upload = self._upload_in_parts if self.rng.random() < IN_PARTS else self._upload
        if (file_id := upload(transcript, content)) is None:
            return
        transcript.id = file_id
        transcript.statuses.append(self._read_back(file_id, content))
        if self.rng.random() < DELETED or len(content) > KEPT_BYTES:
            self._repeat(HttpRequest("DELETE", f"/v1/files/{file_id}"), (200, 404))
            transcript.statuses.append(GONE)
        transcript.ended = time.monotonic()

    def _upload(self, transcript: ClientTranscript, content: bytes) -> str | None:
        fields = {"purpose": b"user_data"}
        request = form_request("/v1/files", transcript.key, "file", content, fields, key=transcript.key)
        reply = self.http.send(transcript, request, timeout=WORK_TIMEOUT, record=transcript.replies.append)
        return str(reply.json()["id"]) if reply.status == 200 else None

    def _upload_in_parts(self, transcript: ClientTranscript, content: bytes) -> str | None:
        """Upload in two parts, of which the second is sent first. Returns None for an upload that Postgres has lost."""
        middle = self.rng.randrange(len(content) + 1)
        body = {
            "bytes": len(content), "filename": transcript.key, "mime_type": "application/octet-stream",
            "purpose": "user_data",
        }  # fmt: skip
        create = HttpRequest("POST", "/v1/uploads", body, {"Idempotency-Key": f"{transcript.key}-create"})
        created = self._repeat(create, (200, 400, 404, 409)).json()
        path = f"/v1/uploads/{created.get('id')}"
        part_ids: list[str] = []
        for number, piece in ((1, content[middle:]), (0, content[:middle])):
            request = form_request(f"{path}/parts", "part", "data", piece, {}, key=f"{transcript.key}-{number}")
            part_ids.insert(0, str(self._repeat(request, (200, 404, 409)).json().get("id")))
        request = HttpRequest(
            "POST", f"{path}/complete", {"part_ids": part_ids}, {"Idempotency-Key": f"{transcript.key}-complete"}
        )
        completed = self._repeat(request, (200, 400, 404, 409))
        # A 404 is the end of an upload that was lost.
        transcript.replies.append(RecordedReply(time.monotonic(), completed.status, completed.code))
        file: Mapping[str, Any] = completed.json().get("file") or {}
        return str(file["id"]) if file else None

    def _read_back(self, file_id: str, content: bytes) -> str:
        reply = self._repeat(HttpRequest("GET", f"/v1/files/{file_id}/content"), (200, 404))
        if reply.status == 404:
            return MISSING
        return SAME if reply.body == content else OTHER

    def _repeat(self, request: HttpRequest, final: tuple[int, ...]) -> Reply:
        """Send a request until it has one of these statuses. Raises DeadlineExceeded."""
        for _ in self.http.tries():
            reply = self.http.send_once(request, WORK_TIMEOUT)
            if reply.status in final and not reply.retryable:
                break
        return reply


def form_request(
    path: str, filename: str, field: str, content: bytes, fields: Mapping[str, bytes], *, key: str
) -> HttpRequest:
    """Return a request with a form, whose file comes first."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'
    body = head.encode() + content + b"\r\n"
    for name, value in fields.items():
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
    body += f"--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Idempotency-Key": key}
    return HttpRequest("POST", path, body, headers)
