"""Who may make a request: authentication, rights, rate limits, and repeats under an Idempotency-Key."""
