"""Chaos: clients that work continuously, an injector that breaks one part after the other, a checker of all guarantees.

`python -m bench.chaos` starts a stack of its own (`stack`), breaks it by a plan that depends on a seed alone
(`injector`, `faults`, `proxy`) while clients work (`fleet`), and then checks what they received and what the tables
contain (`checker`). `planted` shows that it detects broken builds.
"""
