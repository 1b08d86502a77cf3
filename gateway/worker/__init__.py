"""The child process that hosts one replica. Imports asyncio, msgspec and uvloop, but no web framework."""
