"""Tell an outage of Postgres, which passes by itself, from the failure of a statement.

psycopg raises OperationalError for both. An operation is repeated for as long as the server is unavailable, so only
what passes by itself may count as that. Everything else is raised as it is; a job counts it as a failure and is
retried with a backoff while it has attempts left. These are failures too, although psycopg calls them operational:

55P03  a lock was not granted in time; its holder may be stuck, or even wait for this caller
57014  the statement was cancelled, because it took too long or on request
53200  out of memory or of locks: more often a property of the statement than of the server
54...  the statement exceeds a limit of Postgres
58...  an I/O error, which no repetition repairs
25P04  the transaction exceeded an operator's time limit, and would again
"""

from typing import Any

import psycopg

#: The server or the connection is gone, or the server lacks what only an operator or time can give.
OUTAGES = frozenset(
    {
        "25P03",  # the transaction was idle for too long, because its process was frozen: Postgres ended the connection
        "57P01",  # the server shuts down, or an operator ended the connection
        "57P02",  # another backend crashed, so Postgres ended all connections
        "57P03",  # the server starts, or recovers from a crash
        "57P05",  # an operator's limit for idle connections ended this one
        "53300",  # all connections are in use
        # The disk is full: no write succeeds until an operator frees space, not even one that counts a failure, and
        # counting would end every job of the installation as dead.
        "53100",
    }
)

#: Postgres rolled this transaction back in favour of a concurrent one, so one of them always succeeds.
CONFLICTS = frozenset({"40001", "40P01"})

#: A write was sent to a standby, as on a connection to a former primary.
READ_ONLY = "25006"

#: The class of connection exceptions. Postgres also reports some faulty statements with it, on a connection that stays
#: open; a pooler reports lost servers with it, and closes the connection.
CONNECTION_EXCEPTIONS = "08"


def is_outage(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Return whether an error of this connection means that the server is unavailable."""
    state = error.sqlstate
    if state is None or state.startswith(CONNECTION_EXCEPTIONS):
        # psycopg raises a second error when it leaves the pipeline mode of a connection that is about to close.
        cause = error.__context__
        return connection.closed or (isinstance(cause, psycopg.Error) and is_outage(cause, connection))
    if state == READ_ONLY:
        return connection.info.parameter_status("in_hot_standby") == "on"
    return state in OUTAGES


def is_conflict(error: psycopg.Error) -> bool:
    """Return whether the transaction was rolled back in favour of a concurrent one."""
    return error.sqlstate in CONFLICTS
