"""HTTP: bodies, validation, errors, responses, disconnects, and limits of the protocol."""
