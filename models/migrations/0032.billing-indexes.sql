-- roll: expand
-- transactional: false
-- The usage that is on no invoice yet, and that of an invoice.
DROP INDEX CONCURRENTLY IF EXISTS usage_records_unbilled;
CREATE INDEX CONCURRENTLY usage_records_unbilled ON usage_records (account_id, created_at) INCLUDE (billed_amount, billed_currency)
WHERE billed_amount IS NOT NULL AND billed_on IS NULL;

DROP INDEX CONCURRENTLY IF EXISTS usage_records_billed_on;
CREATE INDEX CONCURRENTLY usage_records_billed_on ON usage_records (billed_on, job_id) WHERE billed_on IS NOT NULL;
