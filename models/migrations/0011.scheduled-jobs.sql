-- roll: expand
-- transactional: false
-- Rows that the previous version inserted: those due later become `scheduled`, those behind an earlier job of the same
-- serial key become `blocked`. A batch of rows is locked at a time, and rows that another transaction has locked are left
-- as they are: the relay and the sweeper handle them too.

ALTER TABLE jobs VALIDATE CONSTRAINT jobs_state_check;
ALTER TABLE jobs VALIDATE CONSTRAINT jobs_join_rule_check;

DO $$
DECLARE
    due_later text;
    changed integer := 0;
BEGIN
    FOR due_later IN SELECT id FROM jobs WHERE state = 'queued' AND published_at IS NULL AND run_at > now() LOOP
        UPDATE jobs SET state = 'scheduled'
        WHERE id = (SELECT id FROM jobs WHERE id = due_later AND state = 'queued' AND published_at IS NULL
                                          AND run_at > now() FOR NO KEY UPDATE SKIP LOCKED);
        changed := changed + 1;
        IF changed % 1000 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;

DO $$
DECLARE
    later text;
    changed integer := 0;
BEGIN
    FOR later IN SELECT id FROM jobs WHERE serial_key IS NOT NULL AND state IN ('scheduled', 'queued') LOOP
        UPDATE jobs SET blocked = true
        WHERE NOT blocked AND id = (SELECT id FROM jobs WHERE id = later AND state IN ('scheduled', 'queued')
                                    FOR NO KEY UPDATE SKIP LOCKED)
          AND EXISTS (SELECT FROM jobs AS earlier
                      WHERE earlier.serial_key = jobs.serial_key AND earlier.id < jobs.id
                        AND earlier.state IN ('scheduled', 'queued', 'running', 'waiting'));
        changed := changed + 1;
        IF changed % 1000 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;
