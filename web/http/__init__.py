"""Requests and answers: bodies, validation, errors, and the bounds of the protocol."""
