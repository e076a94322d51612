"""Endpoints for users and accounts: sign-up, login, sessions, members, invitations, API keys, files, audit events."""
