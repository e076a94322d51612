-- roll: expand
-- Bytes of files that an account may keep. The previous version ignores the limit.
UPDATE plans SET limits = limits || '{"stored_bytes": 1073741824}' WHERE id = 'default' AND NOT limits ? 'stored_bytes';

-- The imports whose jobs may have ended, which the sweeper looks for.
CREATE INDEX files_imported ON files (job_id) WHERE purpose = 'import';
