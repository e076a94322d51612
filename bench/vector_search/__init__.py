"""Compare methods of nearest-neighbour search among the vectors of one user: `python -m bench.vector_search`."""
