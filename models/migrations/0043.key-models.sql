-- roll: expand
-- The models that requests of the key may use. NULL: those that the account may.
ALTER TABLE api_keys ADD COLUMN key_models text[];
