"""Batches: validate a file of requests, run its lines in the background, and write the files of their results."""
