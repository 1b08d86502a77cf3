"""OpenAI's /v1/responses routes."""
