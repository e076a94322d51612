"""A trace of one turn: where its time goes, from the POST to the last event, as a picture and as a table.

    python -m bench.trace --picture docs/turn.svg

The platform's own code is untouched: its processes are started through `child`, which wraps what talks to others.

    spans        what was noted, and the file of it         turn     one turn's spans, by lane
    instruments  the wrappers around drivers and threads    picture  the lanes as a drawing
    child        a process of ours, with instruments        table    trips by name, a turn and a token
    run          a platform of such processes, and its turns    server   what Postgres says of them
"""
