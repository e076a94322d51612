"""Turns as OpenAI's clients ask for them: responses, conversations, chat completions, embeddings, models."""
