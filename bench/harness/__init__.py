"""What measurements, chaos, soak and `tests/journeys` share: a stack of child processes, and clients that observe it.

processes  child processes by name, signals, usage     client   one HTTP client, and streams read in a thread
stack      servers, and platforms that run on them     sse      received events, parsed and checked
helper     a module of bench in its own process        waiting  poll until a condition holds
endpoint   an OpenAI-compatible endpoint with a script, faults and a book, as a process
"""
