"""Read the source of a model without running it."""
