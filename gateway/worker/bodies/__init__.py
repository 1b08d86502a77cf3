"""Bodies: the inputs of a method, and the encoding of what it returns or raises."""
