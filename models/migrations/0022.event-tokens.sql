-- roll: expand
-- The generated tokens of each event of a chunk, of which `tokens` is the sum. Null: none has any, or an earlier version
-- wrote the chunk. An attempt needs them where Redis and the archive have lost different parts of a journal.
ALTER TABLE job_events ADD COLUMN event_tokens integer[];
