"""The protocol between the gateway and a worker."""
