"""A cluster of hosts on one machine, each in a network namespace, that is broken as real clusters are.

`python -m bench.cluster` runs the clients and the checks of `bench.chaos` against it: hosts are cut off and killed,
servers fail over, and a new version is rolled out.
"""
