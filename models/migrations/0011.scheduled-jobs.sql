-- Rows that the previous version inserted: those due later become `scheduled`, those behind an earlier job of the same
-- serial key become `blocked`. Only unfinished rows are read.

ALTER TABLE jobs VALIDATE CONSTRAINT jobs_state_check;

UPDATE jobs SET state = 'scheduled' WHERE state = 'queued' AND published_at IS NULL AND run_at > now();

UPDATE jobs SET blocked = true
WHERE serial_key IS NOT NULL AND state IN ('scheduled', 'queued') AND EXISTS (
    SELECT FROM jobs AS earlier
    WHERE earlier.serial_key = jobs.serial_key AND earlier.id < jobs.id
      AND earlier.state IN ('scheduled', 'queued', 'running', 'waiting'));
