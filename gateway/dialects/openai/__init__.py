"""OpenAI's routes except /v1/responses: chat, completions, embeddings, audio, images, moderations."""
