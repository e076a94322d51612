-- roll: expand
-- The tier of service that has served a turn, where it is not that of its request: NULL is what was asked for.
ALTER TABLE responses ADD COLUMN served_tier text;
