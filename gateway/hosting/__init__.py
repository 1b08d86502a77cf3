"""The hosted models: their state, replicas, supervision and reloads, and data stored for them."""
