"""Shared by the plugins of models that take tensors by name: what such a model takes and answers, as JSON.

This is not a plugin: no entry point names it.
"""
