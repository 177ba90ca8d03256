"""What the README says is so: settings, commands, files, routes, rooms and metrics."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from claimsvc.__main__ import app as claimsvc_app
from claimsvc.config import Settings
from claimsvc.http.resources.claims.routes import ROUTES
from claimsvc.http.resources.console.routes import DEVELOPMENT_ROUTES
from claimsvc.observability.metrics import Metrics
from stress_test.__main__ import app as stress_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Variables that are no settings of the service: they are for `claimsvc dev` and for the stress test.
_OTHER_VARIABLES = {"CLAIMSVC_STATE_DIR", "CLAIMSVC_ADMIN_KEY"}
_FOLDERS = ("claimsvc/", "stress_test/", "migrations/", "tests/", "dashboards/", "deploy/", ".ci/")
_PATH_ENDS = (".py", ".lua", ".yml", ".toml", ".md", ".example")


def code() -> Iterator[str]:
    """Every line of code in the README: those of fenced blocks, and each span between backticks."""
    prose = README
    for block in re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        prose = prose.replace(block, "")
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose)


def table_of_settings() -> str:
    """The table as it should be, from the settings themselves."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default in ((), None):
            default = "none"
        else:
            default = f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"
        rows.append(f"| `CLAIMSVC_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


@dataclass(frozen=True, slots=True)
class Command:
    """What may follow a command's own words."""

    options: set[str]
    has_subcommands: bool


def commands_of(app: typer.Typer) -> dict[str, Command]:
    """Each command by its words."""
    found: dict[str, Command] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        options = {option for parameter in command.params for option in parameter.opts}
        children = getattr(command, "commands", {})
        found[" ".join(words)] = Command(options | {"--help"}, bool(children))
        for name, child in children.items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_the_settings_table_is_that_of_the_settings() -> None:
    """On a difference this prints the table that belongs between the two comments."""
    match = re.search(r"<!-- settings: [^\n]* -->\n(.*)<!-- /settings -->", README, re.DOTALL)
    assert match, "the README has lost the comments around its settings table"
    expected = table_of_settings()
    if match[1].strip() != expected:
        pytest.fail(f"put this between the README's two settings comments:\n\n{expected}\n", pytrace=False)


def test_every_variable_named_is_a_setting() -> None:
    named = set(re.findall(r"CLAIMSVC_[A-Z_]+", README))
    assert named - _OTHER_VARIABLES <= {f"CLAIMSVC_{name.upper()}" for name in Settings.model_fields}


def test_every_make_target_named_exists_and_every_target_is_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    named = {target for line in code() for target in re.findall(r"(?:^|[\s$])make ([a-z]+)", line)}
    assert named == targets


@pytest.mark.parametrize(
    ("program", "app"),
    [
        pytest.param(r"(?<![\w/-])claimsvc ", claimsvc_app, id="claimsvc"),
        pytest.param(r"python -m stress_test ", stress_app, id="stress_test"),
        pytest.param(r"make stress .*?ARGS='?", stress_app, id="make stress"),
        pytest.param(r"make run .*?ARGS='?", claimsvc_app, id="make run"),
    ],
)
def test_every_command_named_exists_with_its_options(program: str, app: typer.Typer) -> None:
    commands = commands_of(app)
    for line in code():
        for given in re.findall(rf"{program}([^#'`]*)", line):
            words = f"dev {given}" if "make run" in program else given
            arguments = re.split(r" -- |   ", words)[0].split()
            name = ""
            while arguments and f"{name} {arguments[0]}".strip() in commands:
                name = f"{name} {arguments.pop(0)}".strip()
            operands = [argument for argument in arguments if not argument.startswith("-")]
            assert not (commands[name].has_subcommands and operands), f"no such command: {line}"
            unknown = {argument for argument in arguments if argument.startswith("--")} - commands[name].options
            assert not unknown, f"{unknown} in: {line}"


def test_every_file_named_exists() -> None:
    links = [target for target in re.findall(r"\]\(([^)#\s]+)\)", README) if "://" not in target]
    spans = [span for span in code() if " " not in span and "<" not in span]
    files = [span for span in spans if span.startswith(_FOLDERS) or span.endswith(_PATH_ENDS)]
    assert len(files) > 10
    missing = [name for name in (*links, *files, "LICENSE", "Dockerfile") if not (ROOT / name).exists()]
    assert missing == []


def test_every_heading_linked_to_exists() -> None:
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_the_routes_are_those_that_are_served() -> None:
    served = {f"{route.method} {route.path}" for route in (*ROUTES, *DEVELOPMENT_ROUTES)}
    named = {f"{method} {path}" for method, path in re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]+)", README)}
    assert named <= served
    said_elsewhere = {
        *("GET /openapi.json", "GET /docs", "GET /docs/{file}"),
        *("GET /console/{file}", "POST /console/stress-test", "PATCH /api/coupons/claim"),
    }
    assert served - said_elsewhere <= named


def test_every_metric_named_exists_and_every_metric_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    exposition = Metrics().render()[0].decode()
    exported = set(re.findall(r"^# TYPE (claimsvc_\w+)", exposition, re.MULTILINE))
    exported = {name for name in exported if not name.endswith("_created")}
    assert set(re.findall(r"claimsvc_[a-z_]+", README)) == exported


def test_the_rooms_are_those_that_the_import_rules_know() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["type"] == "layers")
    rows = re.findall(r"^\| \d \| (`[^|]*`) \|", README, re.MULTILINE)
    assert [row.replace("`", "").split(", ") for row in rows] == [layer.split(" | ") for layer in layers]
