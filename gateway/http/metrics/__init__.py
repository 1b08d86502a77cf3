"""The metrics at /metrics: requests, models, and metrics that models register."""
