"""Renew the lease of this web process, without which the scheduler abandons the turns of its clients."""

import asyncio
import logging

from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.turns import web_processes
from web.http.threads import run_in_thread

log = logging.getLogger(__name__)


class ProcessLease:
    """The lease of a web process. `name` is unique."""

    def __init__(self, database: Database) -> None:
        self.name = new_id("web")
        self._database = database
        self._held = False

    async def renew_always(self) -> None:
        """Renew the lease until the task is cancelled. While the database is away no lease expires."""
        while True:
            await run_in_thread(self._renew)
            await asyncio.sleep(web_processes.RENEWAL)

    def end(self) -> None:
        """End the lease, because the process stops."""
        if not self._held:
            return
        try:
            with self._database.connection() as connection:
                web_processes.end(connection, self.name)
        except Unavailable:
            log.warning("Cannot end the lease of this process: turns of its clients will be cancelled")

    def _renew(self) -> None:
        try:
            with self._database.connection() as connection:
                web_processes.renew(connection, self.name)
            self._held = True
        except Unavailable:
            return
        except Exception:
            log.exception("Cannot renew the lease of this process; retrying in %g s", web_processes.RENEWAL)
