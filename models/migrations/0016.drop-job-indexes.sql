-- roll: contract 0013
-- transactional: false
-- Indexes that only versions before 0013 read. Each of them cost every change of a job's state: all indexes of the row's
-- new version are opened, and most of these were written.
DROP INDEX CONCURRENTLY IF EXISTS jobs_unpublished;
DROP INDEX CONCURRENTLY IF EXISTS jobs_in_flight;
DROP INDEX CONCURRENTLY IF EXISTS jobs_lease;
DROP INDEX CONCURRENTLY IF EXISTS jobs_serial;
DROP INDEX CONCURRENTLY IF EXISTS jobs_reserved;

-- Jobs of an account in a state: only ended ones are listed by this index, which a turn enters once instead of with each
-- of its states. `jobs_unfinished_of_account` has the others.
DROP INDEX CONCURRENTLY IF EXISTS jobs_ended_of_account;
CREATE INDEX CONCURRENTLY jobs_ended_of_account ON jobs (account_id, state, id DESC)
    WHERE state IN ('completed', 'failed', 'cancelled', 'dead');
DROP INDEX CONCURRENTLY IF EXISTS jobs_account_state;
