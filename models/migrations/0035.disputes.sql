-- roll: expand
-- What the customer's bank has taken back of a payment and has not decided, and what it has decided against us.
ALTER TABLE payments
    ADD COLUMN disputed_amount numeric NOT NULL DEFAULT 0,
    ADD COLUMN lost_amount     numeric NOT NULL DEFAULT 0;

UPDATE payments SET disputed_amount = (
    SELECT coalesce(sum(CASE WHEN debit = 'disputes' THEN postings.amount ELSE -postings.amount END), 0)
    FROM postings WHERE reference = payments.id AND kind = 'dispute')
WHERE state = 'disputed';
