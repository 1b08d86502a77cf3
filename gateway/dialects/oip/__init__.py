"""The Open Inference Protocol (/v2): tensors, their schemas and binary bodies."""
