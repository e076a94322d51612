-- The threads that are needed so that what waits now begins within the promised seconds. With S threads, attempts of m
-- seconds, and D jobs that run or wait, the last one waits for (D - S) * m / S (models/serving/forecast.py), which is
-- at most p if S >= D * m / (m + p). Where no worker has measured an attempt, m is assumed.
--
-- Jobs that run or are published are counted by the index `jobs_lane_in_flight`, and those that wait in the table by
-- `jobs_due`, shard by shard as the outbox does (models/jobs/outbox.py): never jobs that are blocked, due later or ended.
WITH promise (promised_queue, promised) AS (
    PROMISES
), measured AS (
    SELECT served_queue, avg((mean_seconds ->> served_queue)::float) AS seconds
    FROM workers CROSS JOIN LATERAL unnest(queues) AS served_queue
    WHERE pid > 0 AND seen_at > now() - interval '7 seconds'
    GROUP BY served_queue
)
SELECT coalesce(sum(demand * mean / (mean + promised)), 0)::float AS needed_threads
FROM promise
LEFT JOIN measured ON served_queue = promised_queue
CROSS JOIN LATERAL (SELECT coalesce(seconds, ASSUMED)::float AS mean) AS attempt
CROSS JOIN LATERAL (
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM jobs
            WHERE queue = promised_queue AND (state = 'running' OR (state = 'queued' AND published_at IS NOT NULL))
            LIMIT 10000) AS in_flight
    ) + (
        SELECT count(*) FROM generate_series(0, 3) AS shard CROSS JOIN LATERAL (
            SELECT FROM jobs
            WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
              AND ascii(right(coalesce(lane, account_id), 1)) % 4 = shard AND queue = promised_queue
              AND run_at <= now()
            LIMIT 2500) AS due
    ) AS demand
) AS counts
