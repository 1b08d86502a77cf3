"""Interfaces to the operating system: processes, signals, pipes, memory, process ancestry."""
