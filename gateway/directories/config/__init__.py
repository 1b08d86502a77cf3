"""config.yaml: a bounded YAML reader, the schema, and conversion of values."""
