-- For the nightly pruning of ended jobs without a response.
CREATE INDEX jobs_prunable ON jobs (finished_at) WHERE kind <> 'turn.run';
