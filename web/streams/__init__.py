"""Event streams: from the journal's tail to the wire."""
