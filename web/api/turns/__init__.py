"""Endpoints of OpenAI's API: responses, conversations, chat completions, embeddings and models."""
