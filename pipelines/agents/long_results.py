"""Cut the text of a tool's result that is too long for the model, and keep all of it in a file.

The file belongs to the user of the turn, and expires. Where it cannot be stored the model gets the same text without
it: the tool was called, and a call is not repeated for that.
"""

from dataclasses import dataclass

from models.accounts import files, members
from models.accounts.files import File
from models.jobs.attempt_context import Attempt
from models.platform.errors import Cancelled, RequestError, Unavailable
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents.mcp.values import cut_bytes
from pipelines.files.store import store_file

#: The purpose of such a file, and the days for which it is kept.
PURPOSE, KEPT_DAYS = "tool_output", 7


@dataclass(frozen=True, slots=True)
class LongResults:
    """Where the whole texts of the results of a call are kept."""

    settings: Settings
    objects: ObjectStore
    attempt: Attempt
    response: Response

    def shorten(self, text: str) -> str:
        """Return what the model gets of a text: at most about SANGHA_TOOL_OUTPUT_BYTES, and the name of the file."""
        limit, content = self.settings.tool_output_bytes, text.encode()
        if len(content) <= limit:
            return text
        file = self._store(content)
        note = f"\n[The file {file.id} has the whole text, for the tool read_file]" if file else ""
        return cut_bytes(text, limit) + note

    def _store(self, content: bytes) -> File | None:
        """Store a text as a file of the user; None if there is no room for it, or no store."""
        attempt, job = self.attempt, self.attempt.job
        suffix = job.id.removeprefix("job_")
        try:
            with attempt.database.transaction() as connection:
                if (account := members.read_account(connection, job.account_id)) is None:
                    return None
                files.check_stored_bytes(connection, job.account_id, account.limits, len(content))
            return store_file(
                attempt.database,
                self.objects,
                account_id=job.account_id,
                user_id=self.response.user_id,
                file_id=f"file_{suffix}",
                filename=f"result-{suffix}.txt",
                purpose=PURPOSE,
                content_type="text/plain",
                content=[content],
                audience="user",
                days=KEPT_DAYS,
                job_id=job.id,
            )
        except (Cancelled, RequestError, Unavailable):
            return None
