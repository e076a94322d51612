"""Embeddings as a service: vectors of a client's texts."""
