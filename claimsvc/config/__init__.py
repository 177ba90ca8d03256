"""Settings: every `CLAIMSVC_*` variable, its default and its check."""

from claimsvc.config.environment import RenamedVariable, load_database_settings, load_settings, renamed_variables
from claimsvc.config.settings import DatabaseSettings, Settings

__all__ = [
    "DatabaseSettings",
    "RenamedVariable",
    "Settings",
    "load_database_settings",
    "load_settings",
    "renamed_variables",
]
