"""Faults of the servers and of the network between them: each a few functions that do it to a real one, and undo it."""
