"""Agents: their definitions, the tools that the server runs for a turn, delegation and approvals."""
