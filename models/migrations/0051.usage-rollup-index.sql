-- roll: expand
-- transactional: false
-- The usage records that were changed since the roll-ups were brought up to date, and the ledger without its most
-- frequent postings, by time.
DROP INDEX CONCURRENTLY IF EXISTS usage_records_changed_in;
CREATE INDEX CONCURRENTLY usage_records_changed_in ON usage_records (changed_in);

DROP INDEX CONCURRENTLY IF EXISTS postings_by_time;
CREATE INDEX CONCURRENTLY postings_by_time ON postings (posted_at, account_id) WHERE kind <> 'usage';
