"""The clients of a fleet that have reports of their account's usage built, and read them."""

import time
from collections.abc import Mapping
from typing import Any

from bench.chaos.clients import FleetClient
from bench.chaos.retrying_client import WORK_TIMEOUT, HttpRequest
from bench.chaos.transcripts import ClientTranscript

#: The numbers of a row that are counted.
COUNTED = ("jobs", "input_tokens", "cached_tokens", "output_tokens")

#: Seconds before and after a request that its report covers.
PERIOD = 7 * 86_400


class ReportClient(FleetClient):
    """Requests one report after the other, once no process of a version without them runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._begun = False

    def begin_reports(self) -> None:
        """Let it work from now on."""
        self._begun = True

    def work(self) -> None:
        if not self._begun:
            return
        now = int(time.time())
        request = {"kind": "usage", "group_by": ["model"], "start": now - PERIOD, "end": now + PERIOD}
        transcript = self.begin("report", request)
        self.create(transcript, "/v1/reports", timeout=WORK_TIMEOUT)
        if transcript.id:
            report = self.poll(transcript, f"/v1/reports/{transcript.id}", "status")
            transcript.final = {**report, "table": self._read_table(transcript, report)}
            transcript.ended = time.monotonic()

    def _read_table(self, transcript: ClientTranscript, report: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the content of a report's file; empty without one."""
        if not report.get("file_id"):
            return {}
        reply = self.http.send(transcript, HttpRequest("GET", f"/v1/files/{report['file_id']}/content"))
        return reply.json() if reply.status == 200 else {}
