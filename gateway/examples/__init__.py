"""Example requests to copy: curl and SDK calls, with values that match a schema."""
