"""The pages for people, in a browser: their files, and the endpoints that serve them."""
