-- roll: expand
-- Spaces for end users: the people for whom an application of the user works. `end_user` is the name that the
-- application gives them, empty for the user's own space. Earlier versions know only that, so others exist once the
-- upgrade is finalized.
ALTER TABLE memory_spaces
    ADD COLUMN end_user   text         NOT NULL DEFAULT '',
    ADD COLUMN opened_at  timestamptz  NOT NULL DEFAULT now();  -- of spaces from before this migration: its time

-- The name of the space whose memories a turn recalls and becomes, and over which a meditation goes.
ALTER TABLE responses ADD COLUMN space text NOT NULL DEFAULT '';
ALTER TABLE meditations ADD COLUMN space text NOT NULL DEFAULT '';

-- Whose memory a key's requests use that name no end user: its user's (`owner`), or none (`named`). Keys from before
-- this migration may serve several people, so they get none until their user chooses otherwise.
ALTER TABLE api_keys ADD COLUMN memory text NOT NULL DEFAULT 'named';

UPDATE plans SET limits = limits || '{"memory_spaces": 100000}'
WHERE id = 'default' AND NOT limits ? 'memory_spaces';
UPDATE plans SET limits = limits || '{"memory_spaces": 1000}'
WHERE id = 'unverified' AND NOT limits ? 'memory_spaces';
