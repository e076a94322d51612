-- roll: expand
-- Whether the API of chat completions lists and shows the response: the turn of a completion that was stored.
ALTER TABLE responses ADD COLUMN is_completion boolean NOT NULL DEFAULT false;
