"""The route table told to people and programs: OpenAPI and the page to try it."""
