-- roll: expand
-- The turn that has answered a request for approval, and what a person approves. The row outlives a response that is not
-- stored: the next turn brings the decision, and the call is made as the row has it.
ALTER TABLE approvals
    ADD COLUMN approval_thread text NOT NULL DEFAULT '',  -- of the turn that asks
    ADD COLUMN tool_digest     text NOT NULL DEFAULT '',  -- of the tool's definition; empty: it has none
    ADD COLUMN answered_in     text,                      -- the response whose input had the decision
    DROP CONSTRAINT approvals_response_id_fkey;
