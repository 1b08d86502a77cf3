"""Load a model: from a directory to an instance with a descriptor of its methods."""
