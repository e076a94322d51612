"""Meditation: a user's memories are thought over, in one transaction that can be taken back.

    survey → duplicates, contradictions, groups → insights (child jobs) → the plan → measured, applied or dropped

Nothing here deletes what was said: what repeats or contradicts is closed in favour of what stands in its place.
"""
