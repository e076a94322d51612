"""The bodies of requests without HTTP: validate them, convert them to turns, and build the objects that answer them."""
