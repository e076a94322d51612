-- The threads that are needed so that what waits now begins within the promised seconds. With S threads, attempts of m
-- seconds, and D jobs that run or wait, the last one waits for (D - S) * m / S (models/serving/forecast.py), which is
-- at most p if S >= D * m / (m + p). Where no worker has measured an attempt, m is assumed.
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
    SELECT count(*) AS demand FROM (
        (SELECT FROM jobs WHERE queue = promised_queue AND state = 'running' LIMIT 10000)
        UNION ALL
        (SELECT FROM jobs WHERE queue = promised_queue AND state = 'queued' AND run_at <= now() AND NOT blocked
         LIMIT 10000)
    ) AS counted
) AS counts
