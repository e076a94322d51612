-- roll: expand
-- transactional: false
-- For moving trees of jobs to `ended_jobs`, and for pruning those that were never moved, in the order of their ends. The
-- kinds are results that the client or the sweeper deletes within minutes.
DROP INDEX CONCURRENTLY IF EXISTS jobs_movable;
CREATE INDEX CONCURRENTLY jobs_movable ON jobs (finished_at, id)
    WHERE parent_id IS NULL AND state IN ('completed', 'failed', 'cancelled')
      AND kind NOT IN ('embedding.create', 'tokens.count', 'memory.search');
