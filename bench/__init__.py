"""Measure the platform against its goals: `python -m bench` starts a stack of its own and prints one table.

`scenarios/` has one function for each thing measured. It gets a `Bench`, starts platforms with the settings that it
needs, and returns `Figure`s.

    harness          processes, servers and clients        figures         samples, statistics, goals
    load             many cheap clients in a closed loop   table           the table and its JSON
    background_load  turns at a fixed rate                 stream_clients  thousands of event streams
    bare_engine      the engine without the platform       synthetic_jobs  jobs whose events a measurement appends
"""
