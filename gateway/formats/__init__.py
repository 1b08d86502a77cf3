"""Formats of model directories: each module is a plugin whose `find_model` hook describes one."""
