"""Trace one turn: where its time goes, from the POST to the last event, as a picture and as a table.

    python -m bench.trace --picture docs/turn.svg

The platform's own code is not changed: its processes are started through `child`, which wraps their drivers.

    spans        recorded spans, and the file of them      turn     the steps of one turn, by lane
    instruments  wrappers around drivers and threads       picture  the lanes as a drawing
    child        one of Sangha's processes, instrumented   table    round trips by name, a turn and a token
    run          an instrumented platform, and its turns   server   what Postgres logs about them
"""
