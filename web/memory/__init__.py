"""Memories, meditations and schedules."""
