"""Run a method with a list of inputs that came in separate calls."""
