-- The nightly pruning finds ended work that no response holds.
CREATE INDEX jobs_prunable ON jobs (finished_at) WHERE kind <> 'turn.run';
