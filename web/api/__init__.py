"""The endpoints, by subject, and what they share: the request, routing, and the jobs behind requests."""
