-- A role with which KEDA can count jobs, and read nothing of what is in them. Set its password with \password sangha_keda.
CREATE ROLE sangha_keda LOGIN CONNECTION LIMIT 50;
ALTER ROLE sangha_keda SET statement_timeout = '5s';
GRANT SELECT (queue, state, run_at, blocked, published_at, lane, account_id) ON jobs TO sangha_keda;
GRANT SELECT (model_queue, model_endpoint) ON served_models TO sangha_keda;
GRANT SELECT (queues, mean_seconds, pid, seen_at) ON workers TO sangha_keda;
