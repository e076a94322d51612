"""Event streams: follow the journals of jobs, and send them as server-sent events."""
