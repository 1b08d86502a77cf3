"""API keys, what callers may do and see, rate limits, and ending requests when their key is revoked."""
