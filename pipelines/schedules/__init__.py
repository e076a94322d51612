"""Schedules: when they fire, what they start, and how users manage them."""
