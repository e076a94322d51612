-- roll: expand
-- The highest percentage of each quota of which there was an event, and the first day of its period:
-- {"tokens_per_month": {"period": "2026-11-01", "percent": 80}}.
ALTER TABLE accounts ADD COLUMN notified_quotas jsonb NOT NULL DEFAULT '{}';
