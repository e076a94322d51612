"""Write, index, recall and consolidate memories."""
