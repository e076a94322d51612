"""Who comes in, with what right, how often, and asking again for what."""
