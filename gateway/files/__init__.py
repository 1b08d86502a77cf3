"""Files of models and of the gateway: downloads, cache, checksums, mounts, safe opening, cleaning up."""
