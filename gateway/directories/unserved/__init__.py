"""Explain which models in a directory cannot be served, and why."""
