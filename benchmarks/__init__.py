"""What we claim about speed, runnable: `python -m benchmarks [NAME ...] [--quick] [--json]`."""
