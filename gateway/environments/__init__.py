"""Virtual environments for models that request their own: what they require, and how they are built."""
