-- roll: expand
-- transactional: false
-- Indexes for the columns of 0009, built while reads and writes continue. An index that a failed build left behind is
-- dropped first. The indexes that they replace are still used by the previous version.

-- The relay visits the lanes of a queue that have due jobs. Each relay holds the locks of some lanes. `state || ''` is
-- what its statements say too, so that the planner uses no other index that contains queued jobs: statistics that know
-- of none, as is usual beside millions of ended ones, would make such an index seem as good.
DROP INDEX CONCURRENTLY IF EXISTS jobs_due;
CREATE INDEX CONCURRENTLY jobs_due ON jobs
    ((ascii(right(coalesce(lane, account_id), 1)) % 4), queue, (coalesce(lane, account_id)), priority, run_at, sequence, id)
    WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked;

-- It counts the jobs in flight of a lane and of a queue.
DROP INDEX CONCURRENTLY IF EXISTS jobs_lane_in_flight;
CREATE INDEX CONCURRENTLY jobs_lane_in_flight ON jobs (queue, (coalesce(lane, account_id)))
    WHERE state = 'running' OR (state = 'queued' AND published_at IS NOT NULL);

-- The sweeper promotes scheduled jobs, sends lost messages again, and finds passed deadlines.
DROP INDEX CONCURRENTLY IF EXISTS jobs_scheduled;
CREATE INDEX CONCURRENTLY jobs_scheduled ON jobs (run_at) WHERE state = 'scheduled';
DROP INDEX CONCURRENTLY IF EXISTS jobs_published;
CREATE INDEX CONCURRENTLY jobs_published ON jobs (published_at) WHERE state = 'queued' AND published_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS jobs_wait_until;
CREATE INDEX CONCURRENTLY jobs_wait_until ON jobs (wait_until) WHERE state = 'waiting' AND wait_until IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS jobs_deadline;
CREATE INDEX CONCURRENTLY jobs_deadline ON jobs (deadline_at)
    WHERE deadline_at IS NOT NULL AND state IN ('scheduled', 'queued', 'waiting');

-- The unfinished jobs of a serial key, in order.
DROP INDEX CONCURRENTLY IF EXISTS jobs_serial_order;
CREATE INDEX CONCURRENTLY jobs_serial_order ON jobs (serial_key, (coalesce(sequence, 0)), id)
    WHERE serial_key IS NOT NULL AND state IN ('scheduled', 'queued', 'running', 'waiting');

-- Counts by state for operators, and the unfinished jobs of an account.
DROP INDEX CONCURRENTLY IF EXISTS jobs_unfinished;
CREATE INDEX CONCURRENTLY jobs_unfinished ON jobs (queue, state, kind)
    WHERE state IN ('queued', 'running', 'waiting', 'dead');
DROP INDEX CONCURRENTLY IF EXISTS jobs_unfinished_of_account;
CREATE INDEX CONCURRENTLY jobs_unfinished_of_account ON jobs (account_id, kind)
    WHERE state IN ('scheduled', 'queued', 'running', 'waiting');
DROP INDEX CONCURRENTLY IF EXISTS jobs_reservations;
CREATE INDEX CONCURRENTLY jobs_reservations ON jobs (account_id) INCLUDE (reserved_tokens, id)
    WHERE reserved_tokens > 0 AND state IN ('scheduled', 'queued', 'running', 'waiting');
