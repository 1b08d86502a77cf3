"""Answers that obey a schema, a regular expression, a list of choices or a grammar, on every engine.

`constraint` reads what a request asks for, `schemas` finds what of a schema cannot be enforced, `grammars` writes one
grammar of thoughts, calls and the answer, and `guide` says which tokens may come next. Only `guide` imports llguidance.
"""
