-- Extension events are named `sangha:subject.verb`: rewrite `sangha.subject.verb` in archived events. Each line is an
-- event and begins with its type. Readers accept both names (models/journal/events.py), so this may run beside either
-- version. A large archive takes longer than a migration's usual limit of 300 s.
SET LOCAL statement_timeout = 0;
UPDATE job_events SET events = regexp_replace(events, '^\{"type":"sangha\.', '{"type":"sangha:', 'gn')
WHERE events LIKE '%{"type":"sangha.%';
