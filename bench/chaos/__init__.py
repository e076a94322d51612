"""Chaos: clients that keep on working, an adversary that breaks one part after the other, a checker of all promises.

`python -m bench.chaos` starts a stack of its own (`arena`), breaks it by a plan that depends on a seed alone
(`adversary`, `faults`, `proxy`), lets clients work all the while (`fleet`), and then goes through what they heard and
what the tables hold (`checker`). `planted` shows that it would notice.
"""
