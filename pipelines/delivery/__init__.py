"""Delivery to the outside: e-mail."""
