"""Memory: what was said is remembered, recalled, and thought over."""
