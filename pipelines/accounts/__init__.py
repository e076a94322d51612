"""Users, accounts and authentication: signup, login, sessions, tokens, API keys, members and invitations."""
