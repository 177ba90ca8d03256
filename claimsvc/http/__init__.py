"""The HTTP API: from `routes` (parse, ask, render) to `problems` (which outcome has which status)."""

from claimsvc.http.app import create_app, create_runner
from claimsvc.http.framework.services import HttpObserver, Services, StressTests, Unobserved
from claimsvc.http.resources.claims.routes import CLAIM_PATH

__all__ = ["CLAIM_PATH", "HttpObserver", "Services", "StressTests", "Unobserved", "create_app", "create_runner"]
