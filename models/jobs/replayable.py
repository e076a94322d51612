"""Which ended jobs an operator may replay. What belongs to one, such as its effects, is kept until it is discarded."""

#: Condition on a row of `jobs`: it is dead, or failed because an effect is unknown.
REPLAYABLE = """
(jobs.state = 'dead' OR jobs.state = 'failed' AND coalesce(jobs.error ->> 'code' = 'effect_unknown', false))"""
