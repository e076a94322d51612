"""`sangha top`: what an installation does now, in a terminal or as JSON."""
