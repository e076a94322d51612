"""Who people are and how they prove it: passwords, tokens, signing up and logging in."""
