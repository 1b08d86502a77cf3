"""The API document at /openapi.json."""
