"""Settings: every `CLAIMSVC_*` variable, its default and its check."""

from claimsvc.config.environment import RenamedVariable, load_database_settings, load_settings, renamed_variables
from claimsvc.config.run_variables import hint, run_marker, run_variables
from claimsvc.config.settings import DatabaseSettings, Settings

__all__ = [
    "DatabaseSettings",
    "RenamedVariable",
    "Settings",
    "hint",
    "load_database_settings",
    "load_settings",
    "renamed_variables",
    "run_marker",
    "run_variables",
]
