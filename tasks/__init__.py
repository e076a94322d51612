"""The queue: Dramatiq's broker, the relay, the job runner, the worker process, and a module of actors per pool."""
