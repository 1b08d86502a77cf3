"""What the plugins of models on tables share: how a request gives rows, and what an answer holds. It is not a plugin.

`columns` describes the columns of a model. `forms` finds the rows in a body, `csv_rows` reads CSV, `rows` makes the
numbers of them. `model` has the class that a plugin completes, `files` finds the file of a directory. Nothing here
imports a framework.
"""
