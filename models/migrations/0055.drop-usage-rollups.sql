-- roll: contract 0054
-- Sums of quarter hours as `usage_quarters` has them now.
DROP TABLE IF EXISTS latency_rollups, usage_rollups, rollup_state;
