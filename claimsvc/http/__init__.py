"""The HTTP API: from `routes` (parse, ask, render) to `problems` (which outcome has which status)."""

from claimsvc.http.app import create_app, create_runner
from claimsvc.http.framework.services import Services, StressTests
from claimsvc.http.resources.claims.routes import CLAIM_PATH
from claimsvc.http.server.observers import HttpObserver, Unobserved

__all__ = ["CLAIM_PATH", "HttpObserver", "Services", "StressTests", "Unobserved", "create_app", "create_runner"]
