-- roll: expand
-- The bytes of a job's arguments, first events and input, which the limit `unfinished_bytes` sums up while it is
-- unfinished. 0: of an earlier version, which ignores the limit.
ALTER TABLE jobs ADD COLUMN job_bytes integer NOT NULL DEFAULT 0;

UPDATE plans SET limits = limits || '{"unfinished_bytes": 268435456}'
WHERE id = 'default' AND NOT limits ? 'unfinished_bytes';
UPDATE plans SET limits = limits || '{"unfinished_bytes": 67108864}'
WHERE id = 'unverified' AND NOT limits ? 'unfinished_bytes';
