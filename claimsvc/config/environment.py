"""Reads the settings from the environment, which nothing else in the package does but `run_variables`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from claimsvc.config.settings import DatabaseSettings, Settings
from claimsvc.errors import SettingsError

# Settings by their former names. A former name still works, with a warning at start.
RENAMED = MappingProxyType(
    {
        "claim_patience_seconds": "claim_queue_timeout_seconds",
        "shutdown_farewell_seconds": "shutdown_drain_notice_seconds",
    }
)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Args:
        overrides: values from the command line, which win over the environment; None overrides nothing.

    Raises:
        SettingsError: one line for each variable that is missing or wrong, which says what it should be.
    """
    return _load(Settings, overrides)


def load_database_settings() -> DatabaseSettings:
    """Read only the settings of PostgreSQL, for commands that need nothing else. Raises as `load_settings`."""
    return _load(DatabaseSettings, {})


@dataclass(frozen=True, slots=True)
class RenamedVariable:
    """A variable that is set by its former name.

    `is_ignored` is true when the new name is set as well, because the new name wins.
    """

    former: str
    current: str
    is_ignored: bool


def renamed_variables() -> list[RenamedVariable]:
    """The variables that are set by a former name; the service warns of them at start."""
    found = environment()
    return [
        RenamedVariable(_variable(former), _variable(current), _variable(current) in found)
        for former, current in RENAMED.items()
        if _variable(former) in found
    ]


_AnySettings = TypeVar("_AnySettings", bound=DatabaseSettings)


def _load(settings: type[_AnySettings], overrides: dict[str, Any]) -> _AnySettings:
    found = environment()
    former_names = {current: former for former, current in RENAMED.items()}
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for name in settings.model_fields:
        variables[name] = _variable(name)
        if variables[name] not in found and name in former_names and _variable(former_names[name]) in found:
            variables[name] = _variable(former_names[name])
        if variables[name] in found:
            values[name] = found[variables[name]]
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(detail, variables) for detail in error.errors())) from None


def environment() -> dict[str, str]:
    """The variables of the environment, by their names in upper case."""
    # Names are taken in any case.
    return {name.upper(): value for name, value in os.environ.items()}


def _variable(name: str) -> str:
    return f"CLAIMSVC_{name.upper()}"


def _explain(error: Any, variables: Mapping[str, str]) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    variable = variables.get(name, _variable(name))
    if error["type"] == "missing":
        return f"{variable} is not set: {Settings.model_fields[name].description}"
    field = Settings.model_fields.get(name)
    if error["type"] == "value_error" or field is None:
        return f"{variable}: {str(error['msg']).removeprefix('Value error, ')}"
    return f"{variable}: must be {_rule(field)}"


def _rule(field: FieldInfo) -> str:
    """What a setting must be, from its type and its bounds."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(repr, get_args(field.annotation)))
    kind = "a whole number" if field.annotation is int else "a number" if field.annotation is float else "text"
    bounds = {type(bound): bound for bound in field.metadata}
    if Ge in bounds and Le in bounds:
        return f"{kind} from {bounds[Ge].ge:g} to {bounds[Le].le:g}"
    if Gt in bounds and Le in bounds:
        return f"{kind} greater than {bounds[Gt].gt:g} and at most {bounds[Le].le:g}"
    return kind
