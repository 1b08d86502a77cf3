"""Language models, whatever computes their tokens: requests to token ids, token ids to answers. Not a plugin.

`gateway_transformers` and `gateway_llamacpp` share it. `generator` has the base of their classes; an engine only knows
token ids. `gguf` finds and checks GGUF files. Imports no framework.
"""
