-- roll: expand
-- How far each promise has been checked, and what breaks it: ids of jobs and invoices, or kinds and references of
-- postings. Schedulers write it, and metrics show the numbers (models/reports/promises.py).
CREATE TABLE promise_checks (
    promise      text         PRIMARY KEY,
    checked_to   timestamptz  NOT NULL,                -- rows that ended or were posted until then
    breaches     text[]       NOT NULL DEFAULT '{}'
);
