"""Run the calls of a worker: slots, threads, stream windows, delivery of answers."""
