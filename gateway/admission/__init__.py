"""Admission: whether a call starts, waits or is refused. Slots and queues of models, shared limits, deadlines."""
