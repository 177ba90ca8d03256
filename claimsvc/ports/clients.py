"""Whose work the current task does, so that what clients share can be shared out fairly."""

from contextvars import ContextVar

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""The address of the client whose request the current task answers; empty for the service's own work."""
