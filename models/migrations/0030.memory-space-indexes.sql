-- roll: expand
-- transactional: false
-- Spaces and meditations are unique by end user, and memories are listed by space. The previous version finds rows by the
-- first columns of these indexes.
DROP INDEX CONCURRENTLY IF EXISTS memory_spaces_key;
CREATE UNIQUE INDEX CONCURRENTLY memory_spaces_key ON memory_spaces (account_id, user_id, end_user);
ALTER TABLE memory_spaces DROP CONSTRAINT IF EXISTS memory_spaces_account_id_user_id_key;

DROP INDEX CONCURRENTLY IF EXISTS meditations_unfinished_of_space;
CREATE UNIQUE INDEX CONCURRENTLY meditations_unfinished_of_space ON meditations (account_id, user_id, space)
    WHERE outcome IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS meditations_unfinished;

DROP INDEX CONCURRENTLY IF EXISTS meditations_of_space;
CREATE INDEX CONCURRENTLY meditations_of_space ON meditations (account_id, user_id, space, id DESC);
DROP INDEX CONCURRENTLY IF EXISTS meditations_user;

DROP INDEX CONCURRENTLY IF EXISTS memories_of_space;
CREATE INDEX CONCURRENTLY memories_of_space ON memories (space_id, id DESC);
