"""Keeping the house tidy."""
