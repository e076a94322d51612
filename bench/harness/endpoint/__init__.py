"""A scripted OpenAI-compatible endpoint: a process whose answers and faults are chosen while it runs.

answers    the bytes of answers             server     the process: HTTP by hand, and a port that controls it
behaviour  what it plays, and its fault     client     starts the process, changes it, and reads its book
book       every request that it received
"""
