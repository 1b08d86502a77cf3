"""The handlers of the routes, one file for each group."""
