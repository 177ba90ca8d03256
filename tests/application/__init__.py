"""The use cases, on small fakes of their ports."""
