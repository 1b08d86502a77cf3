"""Converting GGUF files for transformers."""
