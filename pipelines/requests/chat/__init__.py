"""`/v1/chat/completions`: convert requests to turns, and responses and events to completions and chunks."""
