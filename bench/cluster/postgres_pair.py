"""A primary of Postgres with a synchronous standby, and the manager that fails over, as Patroni or a cloud does.

Each commit waits for the standby, so a failover loses nothing. While the standby is away, the manager lets the primary
commit alone; then there is no failover.
"""

import time

import psycopg

from bench.cluster.servers import NetworkedPostgres, execute
from bench.harness.waiting import wait_until

#: Seconds between two looks at the standby.
INTERVAL = 0.5

#: Seconds that a promotion may take.
PATIENCE = 30

FOLLOWERS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"

# Whether commits wait for a standby. Looked at only INTERVAL seconds after the setting was changed.
IN_STEP = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"


class PostgresPair:
    """The two servers by their roles."""

    def __init__(self, primary: NetworkedPostgres, standby: NetworkedPostgres) -> None:
        self.primary = primary
        self.standby = standby
        self.synchronous = False
        self._looked_at = 0.0

    def wait_synchronous(self) -> None:
        """Wait until commits wait for the standby. Raises TimeoutError."""
        wait_until(self._is_synchronous, PATIENCE, interval=INTERVAL, what="a standby that has all commits")

    def keep_synchronous(self) -> None:
        """Let commits wait for the standby from the moment on when it follows the primary."""
        if self.synchronous or time.monotonic() - self._looked_at < INTERVAL:
            return
        self._looked_at = time.monotonic()
        try:
            if execute(self.primary, FOLLOWERS):
                self._set_standby_names("*")
                self.synchronous = bool(execute(self.primary, IN_STEP))
        except psycopg.Error:
            return

    def commit_alone(self) -> None:
        """Let the primary commit without its standby."""
        self._set_standby_names("")

    def promote(self) -> None:
        """Exchange the roles. The old primary must be dead, and have been synchronous: it starts as a standby."""
        execute(self.standby, f"SELECT pg_promote(true, {PATIENCE})")
        self.primary, self.standby = self.standby, self.primary
        self.primary.primary, self.standby.primary = None, self.primary.host.name
        self._set_standby_names("")

    def _is_synchronous(self) -> bool:
        self.keep_synchronous()
        return self.synchronous

    def _set_standby_names(self, names: str) -> None:
        """Set the standbys that commits wait for. All processes of the server learn it a moment later."""
        self.synchronous = False
        execute(self.primary, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        execute(self.primary, "SELECT pg_reload_conf()")
