"""What the documentation says is true: settings, commands, paths, links, routes, rooms and metrics."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import generate_latest

from claimsvc.__main__ import app as claimsvc_app
from claimsvc.config import Settings
from claimsvc.http.resources.console.routes import DEVELOPMENT_ROUTES
from claimsvc.http.routes import ROUTES
from claimsvc.observability.metrics import Metrics
from claimsvc.prober import ProbeMetrics
from stress_test.__main__ import app as stress_app

ROOT = Path(__file__).parent.parent
_PATHS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in _PATHS}
EVERYTHING = "\n".join(PAGES.values())

# Variables that are no settings of the service: they are for `claimsvc dev` and for the stress test.
_OTHER_VARIABLES = {"CLAIMSVC_STATE_DIR", "CLAIMSVC_ADMIN_KEY", "CLAIMSVC_PROBE_KEY"}
_FOLDERS = ("claimsvc/", "stress_test/", "migrations/", "tests/", "dashboards/", "deploy/", "docs/", ".ci/")
_PATH_ENDS = (".py", ".lua", ".yml", ".toml", ".md", ".example")
_PATH = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(map(re.escape, _FOLDERS))})[\w./*-]*")
_ROUTE = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]*)")
_LONGEST_README = 200


def code_of(page: str) -> Iterator[str]:
    """Every line of code in a page: those of fenced blocks, and each span between backticks."""
    prose = page
    for block in re.findall(r"^```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        prose = prose.replace(block, "")
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose)


def code() -> Iterator[str]:
    """Every line of code in the documentation."""
    for page in PAGES.values():
        yield from code_of(page)


def links_of(page: str) -> list[str]:
    """The targets of a page's links and pictures that lead to files of this repository or to headings."""
    without_code = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", without_code) if "://" not in target]


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


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
    match = re.search(r"<!-- settings: [^\n]* -->\n(.*)<!-- /settings -->", PAGES["docs/settings.md"], re.DOTALL)
    assert match, "docs/settings.md has lost the comments around its table"
    expected = table_of_settings()
    if match[1].strip() != expected:
        pytest.fail(f"put this between the two comments of docs/settings.md:\n\n{expected}\n", pytrace=False)


def test_every_variable_named_is_a_setting() -> None:
    named = set(re.findall(r"CLAIMSVC_[A-Z_]+", EVERYTHING))
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
    spans = [span for span in code() if " " not in span and "<" not in span]
    files = {span for span in spans if span.startswith(_FOLDERS) or span.endswith(_PATH_ENDS)}
    assert len(files) > 100
    missing = [name for name in sorted(files | {"LICENSE", "Dockerfile"}) if not any(ROOT.glob(name.rstrip("/")))]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_every_path_in_a_text_exists(name: str) -> None:
    """Those within commands, diagrams and plain prose, too."""
    without_links = re.sub(r"\]\([^)\s]+\)", "]", PAGES[name])
    paths = {path.rstrip("/.") for path in _PATH.findall(without_links)}
    assert [path for path in sorted(paths) if not any(ROOT.glob(path))] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(name: str) -> None:
    broken = []
    for link in links_of(PAGES[name]):
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not target.is_file() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, to_read = {"README.md"}, ["README.md"]
    while to_read:
        name = to_read.pop()
        for link in links_of(PAGES[name]):
            target = ((ROOT / name).parent / link.partition("#")[0]).resolve()
            found = target.relative_to(ROOT.resolve()).as_posix()
            if found in PAGES and found not in reached:
                reached.add(found)
                to_read.append(found)
    assert set(PAGES) - reached == set()


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= _LONGEST_README


def test_every_name_on_the_walk_of_a_claim_is_in_its_file() -> None:
    """Architecture follows a claim from the route to the SQL: its tables name a file, and what to look for there."""
    rows = re.findall(r"^\| [a-z]\d \| `([^`]+)` \| ([^|]+) \|", PAGES["docs/architecture.md"], re.MULTILINE)
    assert len(rows) > 15
    missing = [
        f"{name} in {path}"
        for path, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if not re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert missing == []


def test_the_routes_are_those_that_are_served() -> None:
    served = {f"{route.method} {route.path}" for route in (*ROUTES, *DEVELOPMENT_ROUTES)}
    named = {f"{method} {path}" for method, path in re.findall(_ROUTE, EVERYTHING)}
    assert named <= served
    said_elsewhere = {
        *("GET /openapi.json", "GET /docs", "GET /docs/{file}"),
        *("GET /console/{file}", "POST /console/stress-test", "PATCH /api/coupons/claim"),
    }
    in_the_table = {f"{method} {path}" for method, path in re.findall(_ROUTE, PAGES["docs/http.md"])}
    assert served - said_elsewhere <= in_the_table


def test_every_metric_named_exists_and_every_metric_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    exposition = (Metrics().render()[0] + generate_latest(ProbeMetrics("")._registry)).decode()
    exported = set(re.findall(r"^# TYPE (claimsvc_\w+)", exposition, re.MULTILINE))
    exported = {name for name in exported if not name.endswith("_created")}
    assert set(re.findall(r"claimsvc_[a-z_]+", PAGES["docs/metrics.md"])) == exported
    assert set(re.findall(r"claimsvc_[a-z_]+", EVERYTHING)) == exported


def test_the_rooms_are_those_that_the_import_rules_know() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["type"] == "layers")
    rows = re.findall(r"^\| \d+ \| (`[^|]*`) \|", PAGES["docs/architecture.md"], re.MULTILINE)
    assert [row.replace("`", "").split(", ") for row in rows] == [layer.split(" | ") for layer in layers]
