"""The HTTP server: connections, requests, guards, errors. Routes are in `routes`, Prometheus metrics in `metrics`."""
