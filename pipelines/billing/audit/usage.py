"""Checks of usage: journalled tokens, usage records, prices and postings."""

from pipelines.billing.audit.check import Check

POSTED = Check(
    "usage_posting",
    "the usage postings of each job add up to what its usage record says that it costs",
    """
WITH posted AS (
    SELECT reference, account_id, currency,
           sum(CASE WHEN debit = 'usage_unbilled' AND credit = 'revenue' THEN amount
                    WHEN debit = 'revenue' AND credit = 'usage_unbilled' THEN -amount END) AS amount
    FROM postings WHERE kind = 'usage' GROUP BY reference, account_id, currency
), recorded AS (
    SELECT job_id, account_id, billed_currency AS currency, billed_amount AS amount FROM usage_records
    WHERE billed_amount IS NOT NULL
)
SELECT coalesce(posted.reference, job_id) AS subject, coalesce(posted.account_id, recorded.account_id) AS account_id,
       coalesce(recorded.amount, 0)::text AS expected, coalesce(posted.amount, 0)::text AS found
FROM posted FULL JOIN recorded ON job_id = reference AND recorded.account_id = posted.account_id
    AND recorded.currency = posted.currency
WHERE coalesce(recorded.amount, 0) <> coalesce(posted.amount, 0)
""",
)

# What each engine has served of a job, with its price. Most jobs have no segments: their record has it all.
PRICED_PARTS = """
parts AS (
    SELECT job_id, account_id, model, model AS segment_model, '' AS segment_endpoint, input_tokens, cached_tokens,
           output_tokens, price_id, billed_currency AS currency, billed_amount + coalesce(waived_amount, 0) AS amount
    FROM usage_records AS usage
    WHERE billed_amount IS NOT NULL AND NOT EXISTS (
        SELECT FROM usage_segments WHERE usage_segments.job_id = usage.job_id)
    UNION ALL
    SELECT job_id, usage.account_id, model, segment_model, segment_endpoint, segment_input, segment_cached,
           segment_output, segment_price_id, billed_currency, segment_amount
    FROM usage_segments JOIN usage_records AS usage USING (job_id) WHERE segment_amount IS NOT NULL
)
"""

# What a replay has cost after the invoice is waived. A segment may have the price of its endpoint's own model.
PRICED = Check(
    "usage_price",
    "each amount is the price of the tokens of a record or a segment, by a price of its model and currency",
    f"""
WITH {PRICED_PARTS}, priced AS (
    SELECT job_id, account_id, amount AS found,
           CASE WHEN parts.currency = prices.currency AND (
                     prices.model = parts.model
                     OR prices.endpoint <> '' AND prices.model = segment_model
                     AND prices.endpoint = segment_endpoint)
                THEN ((input_tokens - cached_tokens) * prices.input + cached_tokens * prices.cached_input
                      + output_tokens * prices.output) * 0.000001 END AS expected
    FROM parts LEFT JOIN prices ON prices.id = price_id
)
SELECT job_id AS subject, account_id, coalesce(expected::text, 'a price of the model and currency') AS expected,
       found::text AS found
FROM priced WHERE expected IS DISTINCT FROM found
""",  # noqa: S608 - the parts are this program's
)

SEGMENTED = Check(
    "usage_segments",
    "the segments of a job add up to the tokens and the amount of its usage record",
    """
SELECT job_id AS subject, usage.account_id,
       concat_ws(' ', input_tokens, cached_tokens, output_tokens, billed_amount + coalesce(waived_amount, 0))
           AS expected,
       concat_ws(' ', sum(segment_input), sum(segment_cached), sum(segment_output), sum(segment_amount)) AS found
FROM usage_segments JOIN usage_records AS usage USING (job_id)
GROUP BY job_id, usage.account_id, input_tokens, cached_tokens, output_tokens, billed_amount, waived_amount
HAVING (sum(segment_input), sum(segment_cached), sum(segment_output)) <> (input_tokens, cached_tokens, output_tokens)
    OR sum(segment_amount) IS DISTINCT FROM billed_amount + coalesce(waived_amount, 0)
""",
)

# The journal says which engine begins each step, when another one continues it, and how many tokens it has until then.
# A restart discards what was generated of the step. The last engine of a step has the rest of its tokens.
GENERATED = Check(
    "usage_engines",
    "the output tokens of each segment are those that its engine has journalled, as long as the journal exists",
    """
WITH lines AS (
    SELECT usage.job_id, usage.account_id, output_tokens, line::jsonb AS event, (line::jsonb ->> 'type') AS type,
           (line::jsonb ->> 'sequence_number')::bigint AS number
    FROM (SELECT DISTINCT job_id FROM usage_segments) AS segmented JOIN usage_records AS usage USING (job_id)
    JOIN job_events ON job_events.job_id = usage.job_id
    CROSS JOIN LATERAL regexp_split_to_table(events, E'\n') AS line
    WHERE line ~ '^{"type":"sangha:(engine[.](started|changed)|answer[.]restarted|step[.]generated)"'
), steps AS (
    SELECT job_id, account_id, output_tokens, event, type, number,
           count(*) FILTER (WHERE type = 'sangha:engine.started') OVER before AS step
    FROM lines WINDOW before AS (PARTITION BY job_id ORDER BY number)
), kept AS (
    SELECT job_id, account_id, event, type, number, step FROM steps WHERE NOT EXISTS (
        SELECT FROM steps AS restart
        WHERE restart.job_id = steps.job_id AND restart.step = steps.step AND restart.number > steps.number
          AND restart.type = 'sangha:answer.restarted' AND steps.type = 'sangha:engine.changed')
), changes AS (
    SELECT job_id, account_id, step, number, event ->> 'from_model' AS model,
           coalesce(event ->> 'from_endpoint', '') AS endpoint,
           (event ->> 'tokens')::bigint - lag((event ->> 'tokens')::bigint, 1, 0::bigint)
               OVER (PARTITION BY job_id, step ORDER BY number) AS tokens
    FROM kept WHERE type = 'sangha:engine.changed'
), totals AS (
    SELECT job_id, account_id, step, output_tokens,
           max((event -> 'usage' ->> 'output_tokens')::bigint) FILTER (WHERE type = 'sangha:step.generated') AS tokens,
           (array_agg(event ORDER BY number DESC)
                FILTER (WHERE type IN ('sangha:engine.started', 'sangha:engine.changed')))[1] AS last
    FROM steps GROUP BY job_id, account_id, step, output_tokens
), rest AS (
    SELECT job_id, account_id, last ->> 'model' AS model, coalesce(last ->> 'endpoint', '') AS endpoint,
           coalesce(tokens, output_tokens - coalesce(sum(tokens) OVER (PARTITION BY job_id), 0))
           - coalesce((SELECT sum(changes.tokens) FROM changes
                       WHERE changes.job_id = totals.job_id AND changes.step = totals.step), 0) AS tokens
    FROM totals
), expected AS (
    SELECT job_id, account_id, model, endpoint, sum(tokens) AS tokens FROM (
        SELECT job_id, account_id, model, endpoint, tokens FROM changes
        UNION ALL SELECT job_id, account_id, model, endpoint, tokens FROM rest) AS journalled
    GROUP BY job_id, account_id, model, endpoint HAVING sum(tokens) <> 0
), found AS (
    SELECT job_id, account_id, segment_model AS model, segment_endpoint AS endpoint, sum(segment_output) AS tokens
    FROM usage_segments WHERE job_id IN (SELECT job_id FROM lines)
    GROUP BY job_id, account_id, segment_model, segment_endpoint HAVING sum(segment_output) <> 0
)
SELECT concat_ws(' ', job_id, model, endpoint) AS subject, coalesce(expected.account_id, found.account_id)
           AS account_id, coalesce(expected.tokens, 0)::text AS expected, coalesce(found.tokens, 0)::text AS found
FROM expected FULL JOIN found USING (job_id, model, endpoint)
WHERE expected.tokens IS DISTINCT FROM found.tokens
""",
)

# As long as the job exists, the time of its creation is known.
IN_FORCE = Check(
    "usage_price_time",
    "each price was the one in force when the job was created",
    f"""
WITH {PRICED_PARTS}
SELECT parts.job_id AS subject, parts.account_id, 'the price in force at ' || jobs.created_at AS expected,
       prices.id AS found
FROM parts JOIN prices ON prices.id = price_id JOIN all_jobs AS jobs ON jobs.id = job_id
WHERE prices.valid_from > jobs.created_at OR EXISTS (
    SELECT FROM prices AS later
    WHERE later.model = prices.model AND later.currency = prices.currency AND later.endpoint = prices.endpoint
      AND later.service_class = prices.service_class
      AND later.valid_from > prices.valid_from AND later.valid_from <= jobs.created_at)
""",  # noqa: S608 - the parts are this program's
)

# A price that began after the job was created does not apply to it, nor does a billing that began later.
CHARGED = Check(
    "usage_unposted",
    "no usage of a billed account is free where a price was in force",
    """
SELECT usage.job_id AS subject, usage.account_id, prices.id AS expected, 'no amount' AS found
FROM usage_records AS usage JOIN all_jobs AS jobs ON jobs.id = usage.job_id
JOIN accounts ON accounts.id = usage.account_id AND accounts.billed_since <= jobs.created_at
JOIN billing_details AS details ON details.account_id = usage.account_id
CROSS JOIN LATERAL (
    SELECT id FROM prices
    WHERE model = usage.model AND prices.currency = details.currency AND service_class = 'standard' AND endpoint = ''
      AND valid_from <= jobs.created_at
      -- One that was visible when the job was billed: the first of a model begins before its row is committed.
      AND valid_from <= usage.created_at - interval '1 minute'
    LIMIT 1) AS prices
WHERE usage.billed_amount IS NULL
""",
)

# A turn's tokens are in its journal, less those of an answer that was begun again, which nobody pays. What was
# generated for a job without one, such as an embedding, is in its result.
JOURNALLED = Check(
    "usage_tokens",
    "the output tokens of each turn are those in its journal, as long as it exists",
    """
WITH journalled AS (
    SELECT jobs.id, jobs.account_id, sum(job_events.tokens)::bigint AS tokens
    FROM jobs JOIN job_events ON job_events.job_id = jobs.id
    WHERE jobs.kind = 'turn.run' AND jobs.finished_at IS NOT NULL GROUP BY jobs.id, jobs.account_id
    UNION ALL
    SELECT id, account_id, tokens FROM ended_jobs WHERE kind = 'turn.run' AND events IS NOT NULL
)
SELECT journalled.id AS subject, journalled.account_id, tokens::text AS expected,
       coalesce(usage.output_tokens, 0)::text AS found
FROM journalled LEFT JOIN usage_records AS usage ON usage.job_id = journalled.id
WHERE coalesce(usage.output_tokens, 0) <> tokens
  -- Only those are searched for discarded tokens: it reads the texts of the journal.
  AND coalesce(usage.output_tokens, 0) <> tokens - (
      SELECT coalesce(sum(discarded[1]::bigint), 0) FROM job_events
      CROSS JOIN LATERAL regexp_matches(
          job_events.events, '^{"type":"sangha:answer.restarted".*"discarded_tokens":([0-9]+)', 'gn') AS discarded
      WHERE job_events.job_id = journalled.id)
""",
)

SPENT = Check(
    "spending",
    "what counts for the spending limits of a month is what was posted for its usage",
    """
WITH counted AS (
    SELECT account_id, month, sum(amount) AS amount FROM spending WHERE scope = '' GROUP BY account_id, month
), posted AS (
    SELECT account_id, date_trunc('month', posted_at AT TIME ZONE 'UTC')::date AS month,
           sum(CASE WHEN debit = 'usage_unbilled' THEN amount ELSE -amount END) AS amount
    FROM postings WHERE kind = 'usage' GROUP BY 1, 2
)
SELECT coalesce(posted.account_id, counted.account_id) || to_char(coalesce(posted.month, counted.month), ' YYYY-MM')
           AS subject,
       coalesce(posted.account_id, counted.account_id) AS account_id, coalesce(posted.amount, 0)::text AS expected,
       coalesce(counted.amount, 0)::text AS found
FROM posted FULL JOIN counted ON counted.account_id = posted.account_id AND counted.month = posted.month
WHERE coalesce(posted.amount, 0) <> coalesce(counted.amount, 0)
""",
)

# A job has at most one key and one agent, each of which is a scope.
SCOPES = Check(
    "spending_scope",
    "the recorded spending of each API key and agent equals the cost of its usage",
    """
WITH counted AS (
    SELECT account_id, scope, sum(amount) AS amount FROM spending WHERE scope <> '' GROUP BY account_id, scope
), recorded AS (
    SELECT account_id, scope, sum(billed_amount) AS amount FROM usage_records
    CROSS JOIN LATERAL (VALUES ('key:' || billed_key_id), ('agent:' || billed_agent)) AS scopes (scope)
    WHERE billed_amount IS NOT NULL AND scope IS NOT NULL GROUP BY account_id, scope
)
SELECT coalesce(recorded.scope, counted.scope) AS subject,
       coalesce(recorded.account_id, counted.account_id) AS account_id, coalesce(recorded.amount, 0)::text AS expected,
       coalesce(counted.amount, 0)::text AS found
FROM recorded FULL JOIN counted ON counted.account_id = recorded.account_id AND counted.scope = recorded.scope
WHERE coalesce(recorded.amount, 0) <> coalesce(counted.amount, 0)
""",
)

# The class of a job is that of its queue, or what its arguments say. A turn of the tier `priority` that began late is
# standard, which its response says, as long as it exists.
CLASSED = Check(
    "usage_price_class",
    "each price is of the job's class, or of the standard one where the class had no price for any endpoint",
    f"""
WITH {PRICED_PARTS}
SELECT parts.job_id AS subject, parts.account_id, class.name AS expected, prices.service_class AS found
FROM parts JOIN prices ON prices.id = price_id JOIN all_jobs AS jobs ON jobs.id = job_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN right(jobs.queue, 6) = '_batch' THEN 'batch'
                WHEN jobs.arguments ->> 'service_class' = 'priority' AND EXISTS (
                    SELECT FROM responses WHERE responses.id = jobs.arguments ->> 'response_id'
                      AND served_tier = 'default') THEN 'standard'
                WHEN jobs.arguments ->> 'service_class' = 'priority' AND NOT EXISTS (
                    SELECT FROM responses WHERE responses.id = jobs.arguments ->> 'response_id')
                THEN prices.service_class
                ELSE coalesce(jobs.arguments ->> 'service_class', 'standard') END AS name) AS class
WHERE prices.service_class <> class.name AND (prices.service_class <> 'standard' OR EXISTS (
    SELECT FROM prices AS better
    WHERE better.model = parts.model AND better.currency = prices.currency AND better.service_class = class.name
      AND better.endpoint = '' AND better.valid_from <= jobs.created_at))
""",  # noqa: S608 - the parts are this program's
)

# That on a draft is cleared when the invoice is finalised.
UNBILLED = Check(
    "usage_unbilled",
    "the ledger's usage that is not invoiced is that of the usage records on no finalised invoice",
    """
WITH recorded AS (
    SELECT usage.account_id, billed_currency AS currency, sum(billed_amount) AS amount
    FROM usage_records AS usage LEFT JOIN invoices ON invoices.id = billed_on
    WHERE billed_amount IS NOT NULL AND (billed_on IS NULL OR invoices.state = 'draft') GROUP BY 1, 2
), posted AS (
    SELECT account_id, currency, sum(CASE WHEN debit = 'usage_unbilled' THEN amount ELSE -amount END) AS amount
    FROM postings WHERE debit = 'usage_unbilled' OR credit = 'usage_unbilled' GROUP BY 1, 2
)
SELECT coalesce(posted.account_id, recorded.account_id) AS subject,
       coalesce(posted.account_id, recorded.account_id) AS account_id, coalesce(recorded.amount, 0)::text AS expected,
       coalesce(posted.amount, 0)::text AS found
FROM posted FULL JOIN recorded ON recorded.account_id = posted.account_id AND recorded.currency = posted.currency
WHERE coalesce(recorded.amount, 0) <> coalesce(posted.amount, 0)
""",
)

CHECKS = (
    POSTED, PRICED, SEGMENTED, GENERATED, IN_FORCE, CLASSED, CHARGED, JOURNALLED, SPENT, SCOPES, UNBILLED,
)  # fmt: skip
