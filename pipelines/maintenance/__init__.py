"""Erase deleted accounts, and prune ended jobs and expired records."""
