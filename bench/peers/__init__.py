"""Peers for comparison: Aegra, another platform on the same servers, and LiteLLM's proxy, another way to endpoints."""
