-- roll: expand
-- transactional: false
-- The unclaimed one-shot results, with those of compactions. Statements of earlier versions name fewer kinds, and use this
-- index too.
DROP INDEX CONCURRENTLY IF EXISTS jobs_unclaimed;
CREATE INDEX CONCURRENTLY jobs_unclaimed ON jobs (finished_at)
    WHERE kind IN ('embedding.create', 'tokens.count', 'memory.search', 'context.compact');
DROP INDEX CONCURRENTLY IF EXISTS jobs_unread;
