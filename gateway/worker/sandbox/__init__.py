"""The privileges that a worker gives up before it runs code of a model."""
