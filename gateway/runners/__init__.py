"""A replica of a model, and the calls to it. `process` runs a replica in a child process."""
