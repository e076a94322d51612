-- roll: expand
-- transactional: false
-- For lists of stored completions in the order of their creation. Earlier versions write none.
DROP INDEX CONCURRENTLY IF EXISTS responses_completions;
CREATE INDEX CONCURRENTLY responses_completions ON responses (account_id, id) WHERE is_completion;
