"""The HTTP API: from `routes` (parse, ask, render) to `problems` (which outcome has which status)."""

from claimsvc.api.app import create_app, create_runner
from claimsvc.api.routes import CLAIM_PATH
from claimsvc.api.services import HttpObserver, Services, StressTests, Unobserved

__all__ = ["CLAIM_PATH", "HttpObserver", "Services", "StressTests", "Unobserved", "create_app", "create_runner"]
