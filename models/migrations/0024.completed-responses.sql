-- roll: expand
-- When the answer of a response was complete, by the clock of the worker that wrote it into the last event. Null: of an
-- earlier version, or not complete.
ALTER TABLE responses ADD COLUMN completed_at timestamptz;
