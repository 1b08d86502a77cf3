"""GGUF files: finding the model's file, checking whether it can be served, and its tokenizer."""
