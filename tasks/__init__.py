"""The queue door: Dramatiq's broker, the relay, the wrapper around every job, and a module of actors for each pool."""
