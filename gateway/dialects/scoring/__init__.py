"""The de facto routes of rerankers, classifiers and tokenizers."""
