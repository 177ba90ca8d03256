"""The HTTP API: from `routes` (parse, ask, render) to `problems` (which outcome has which status)."""

from claimsvc.api.app import create_app, create_runner
from claimsvc.api.services import HttpObserver, Services, StressTests, Unobserved

__all__ = ["HttpObserver", "Services", "StressTests", "Unobserved", "create_app", "create_runner"]
