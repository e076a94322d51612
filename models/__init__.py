"""The floor: what the platform knows. Records and their SQL, the job catalogue, the event journal, settings, errors.

"Model" means data here. Machine-learning things are called engine (generates text) and embedder (makes vectors) and
live in `pipelines/inference/`.

Where to look, by subject:

jobs          jobs, attempts, running, cancellation, outbox, workers, unread, quota, usage
journal       events, journal, journal_writer, archive
turns         responses, conversations, embeddings, unremembered
memories      memories, memory_spaces, memory_standing, memory_sources, memory_survey, facts; to find them: postings,
              memory_vectors, memory_indexes, recalls
meditations   meditations, meditation_changes
schedules     schedules, firings
accounts      accounts, members, invitations, plans, audit, files, account_data
who comes in  credentials, sessions, api_keys, identities, providers, addresses, claimants, email_tokens, signing_keys,
              rate_limits, idempotency
operators     operators, installation, operations
foundations   settings, secrets, database, migrate, redis_client, object_store, ids, errors
"""
