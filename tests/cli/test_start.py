"""The command line starts at once: help imports nothing that it does not need, and says what the commands say."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from claimsvc.__main__ import app
from claimsvc.cli.outline import OUTLINES

HEAVY = {
    "aiohttp",
    "alembic",
    "asyncpg",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "redis",
    "sqlalchemy",
    "structlog",
}

ASK = """
import json, sys
from claimsvc.__main__ import app
try:
    app(json.loads(sys.argv[1]), prog_name="claimsvc")
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def asked(*arguments: str, **environment: str) -> tuple[int, str, set[str]]:
    """Exit status, output and imported modules of a `claimsvc` of its own."""
    command = [sys.executable, "-c", ASK, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([name, "--help"] for name, outline in OUTLINES.items() if outline.commands)],
    ids=" ".join,
)
def test_help_imports_no_more_than_it_needs(arguments: Sequence[str]) -> None:
    status, output, modules = asked(*arguments)
    assert (status, bool(output)) == (0, True)
    assert modules & HEAVY == set()
    assert {name for name in modules if name.startswith("claimsvc.")} - {
        "claimsvc.__main__",
        "claimsvc.cli",
        "claimsvc.cli.outline",
        "claimsvc.errors",
    } == set()


@pytest.mark.parametrize(
    "arguments",
    ["serve --help", "dev --help", "migrate --help", "purge --help", "doctor --help", "audit --help", "locks --help"]
    + [f"{name} {command} --help" for name, outline in OUTLINES.items() for command in outline.commands],
)
def test_help_on_a_command_imports_nothing_that_takes_long(arguments: str) -> None:
    status, output, modules = asked(*arguments.split())
    assert (status, bool(output)) == (0, True)
    assert modules & (HEAVY | {"asyncio"}) == set()


def test_completion_knows_the_commands_by_their_outlines() -> None:
    whole = group()
    context = whole.make_context("claimsvc", [], resilient_parsing=True)
    found = {item.value: item.help for item in whole.shell_complete(context, "co")}
    assert list(found) == ["coupon", "codes"]
    assert not whole.commands._loaded


@pytest.mark.parametrize("arguments", ["", "coupon", "coupon create", "doctor", "locks"])
def test_the_short_option_shows_the_same_help(arguments: str) -> None:
    short, long = (
        CliRunner().invoke(app, [*arguments.split(), option], prog_name="claimsvc") for option in ("-h", "--help")
    )
    assert (short.exit_code, short.output) == (0, long.output)
    assert re.search(r"--help +-h\b", long.output)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("claimsvc cou", ["coupon"]),
        ("claimsvc coupon a", ["archive"]),
        ("claimsvc coupon create --am", ["--amount"]),
        ("claimsvc doctor --j", ["--json"]),
    ],
)
def test_a_shell_that_completion_was_installed_in_is_answered(words: str, offered: list[str]) -> None:
    asking = {"_CLAIMSVC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    status, output, modules = asked(**asking)
    assert (status, output.split()) == (0, offered)
    # What a command's own options need, typer asks pydantic for.
    assert modules & HEAVY <= ({"pydantic"} if "--" in words else set())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_usual_shell_can_be_had(shell: str) -> None:
    status, output, _ = asked(_CLAIMSVC_COMPLETE=f"source_{shell}")
    assert status == 0
    assert f"_CLAIMSVC_COMPLETE=complete_{shell}" in output


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"claimsvc {version('claimsvc')}\n")


@pytest.mark.parametrize("name", OUTLINES)
def test_an_outline_says_what_the_command_says(name: str) -> None:
    outline, command = OUTLINES[name], group().commands[name]
    assert (outline.help, outline.hidden) == (first_paragraph(command.help), command.hidden)
    if isinstance(command, TyperGroup) and not command.params:
        own = {inner: first_paragraph(each.help) for inner, each in command.commands.items()}
        assert list(outline.commands.items()) == list(own.items())
        assert not any(each.hidden for each in command.commands.values())
    else:
        assert not outline.commands


@pytest.mark.parametrize("name", [name for name, outline in OUTLINES.items() if outline.commands])
def test_the_help_of_a_group_is_that_of_the_group_itself(name: str) -> None:
    outlined = CliRunner().invoke(app, [name, "--help"], prog_name="claimsvc")
    outline = OUTLINES[name]
    whole = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    whole.add_typer(getattr(import_module(outline.module), outline.attribute), name=name)
    own = CliRunner().invoke(whole, [name, "--help"], prog_name="claimsvc")
    assert outlined.output == own.output


def test_a_command_can_be_walked_to() -> None:
    assert list(group().commands) == list(OUTLINES)
    assert "release" in group().commands["locks"].commands


def group() -> Any:
    return get_command(app)
