"""`/v1/memories` and `/v1/meditations`."""
