"""Embeddings on request: `start` enqueues texts, `embed` makes their vectors."""
