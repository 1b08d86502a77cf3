"""The child process that hosts one replica. Imports asyncio, msgspec and uvloop; never a web framework of ours."""
