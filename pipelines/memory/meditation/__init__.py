"""Meditation: consolidate a user's memories in one transaction that can be reverted.

    snapshot → near-duplicates, contradictions, groups → insights (child jobs) → plan → measured; applied or dropped

Episodes are never deleted: a duplicate or contradicted memory is closed and refers to the one that replaces it.
"""
