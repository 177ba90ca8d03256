"""What `claimsvc` can do, as its help tells it, without importing what does it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


@dataclass(frozen=True, slots=True)
class Outline:
    """A command: where it is, and what help says of it.

    `help` is the first paragraph of its own help, on one line. A group whose own help can be shown from here names its
    commands in `commands`, with theirs.
    """

    module: str
    attribute: str
    help: str
    hidden: bool = False
    commands: Mapping[str, str] = field(default_factory=dict)


OUTLINES: dict[str, Outline] = {
    "dev": Outline(
        "claimsvc.cli.serving",
        "dev",
        "Run everything on this machine: PostgreSQL, Valkey, the service and a demo coupon. Ctrl-C stops it.",
    ),
    "serve": Outline(
        "claimsvc.cli.serving",
        "serve",
        "Serve, on databases that CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS name. For production.",
    ),
    "worker": Outline(
        "claimsvc.cli.serving",
        "worker",
        "One of the processes that `serve --workers` starts; not for people.",
        hidden=True,
    ),
    "migrate": Outline(
        "claimsvc.cli.maintenance",
        "migrate",
        "Bring the schema of CLAIMSVC_DATABASE_URL up to date. Safe to run again, and from several places at once.",
    ),
    "reconcile": Outline(
        "claimsvc.cli.maintenance",
        "reconcile",
        "Set right the counters in Redis that have drifted from PostgreSQL. The service does so by itself, too.",
    ),
    "sweep": Outline(
        "claimsvc.cli.maintenance",
        "sweep",
        "Give back the units of holds that are over. The service does so by itself, too.",
    ),
    "purge": Outline(
        "claimsvc.cli.maintenance",
        "purge",
        "Remove what nobody asks for any more: old answers, replaced lists, and coupons that are long over.",
    ),
    "doctor": Outline(
        "claimsvc.cli.doctor",
        "doctor",
        "Check settings, database, schema and masters, and say what is wrong and how to mend it.",
    ),
    "audit": Outline(
        "claimsvc.cli.audit",
        "audit",
        "Who did what, when, to which coupon, claim or key; newest first. With --subject-type claim also its making.",
    ),
    "coupon": Outline(
        "claimsvc.cli.coupons",
        "app",
        "Create and look up coupons, directly in the database.",
        commands={
            "create": "Create a coupon. Audited.",
            "change": "Change a coupon; what is not given stays, and 'none' takes a time, type, benefit or rules "
            "away. Audited.",
            "archive": "Close a coupon for good: nobody can claim it, and no list shows it. Its claims stay. Audited.",
            "list": "List coupons by name.",
            "show": "Show a coupon, its rules and who has claimed it, oldest first (the first 1000).",
        },
    ),
    "claims": Outline(
        "claimsvc.cli.claims",
        "app",
        "Hand claims on to other programs.",
        commands={
            "export": "Print every claim of a coupon as CSV, oldest first, ended ones too. Exits with 1 if it is "
            "not whole.",
        },
    ),
    "codes": Outline(
        "claimsvc.cli.codes",
        "app",
        "Add codes to coupons, look them up and redeem them, directly in the database.",
        commands={
            "upload": "Add the codes of a file to a coupon: all of them, or none. Exit status: 1 if a row was refused.",
            "generate": "Make codes at random, and add them to a coupon.",
            "show": "Show a code: of which coupon it is, whose, and whether it was redeemed.",
            "redeem": "Redeem a code, once.",
        },
    ),
    "key": Outline(
        "claimsvc.cli.keys",
        "app",
        "Make, list and revoke keys.",
        commands={
            "create": "Make a key. It is shown once; the service keeps its SHA-256 only.",
            "list": "List every key there ever was, oldest first, without what it is itself.",
            "revoke": "End a key. Instances that have just seen it may believe it for 5 s more.",
        },
    ),
    "locks": Outline(
        "claimsvc.cli.locks",
        "app",
        "Which locks are held now, by which instance; and giving one back by force.",
    ),
    "user": Outline(
        "claimsvc.cli.users",
        "app",
        "Forget users, directly in the database.",
        commands={
            "erase": "Forget a user: its claims stay, under a name that leads to nobody; lists and stored answers "
            "lose it. Audited.",
        },
    ),
    "lists": Outline(
        "claimsvc.cli.lists",
        "app",
        "Say who may claim a coupon, and who may not, directly in the database.",
        commands={
            "load": "Replace a coupon's list. It is in force whole, or not at all, and claims go on meanwhile.",
            "remove": "Take a coupon's list away. Whom the coupon's rules and its other list admit may claim it.",
        },
    ),
}


class Commands(TyperGroup):
    """The commands of `OUTLINES`. Help and completion see outlines; what is run, or walked through, is the command."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Loaded()  # type: ignore[assignment] # nothing is put into it

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of help."""
        return list(OUTLINES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help and completion show of the command."""
        return _outlined(cmd_name, OUTLINES[cmd_name]) if cmd_name in OUTLINES else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left for the command. Help on a whole group is shown here: it needs no more than outlines."""
        if len(args) == 2 and args[1] == "--help" and args[0] in OUTLINES and OUTLINES[args[0]].commands:
            self.get_command(ctx, args[0]).make_context(args[0], args[1:], parent=ctx)  # leaves once it is shown
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, with its name and what follows it."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = self.commands[args[0]]
            if not ctx.resilient_parsing:
                _configure_logs()
        return name, command, rest


def _configure_logs() -> None:
    from claimsvc import logs  # help needs none

    # What is printed is for whoever has asked, or a program: lines of the log would be in the way. `serve` says more.
    logs.configure("error", "auto")


def _outlined(name: str, outline: Outline) -> TyperCommand | TyperGroup:
    if not outline.commands:
        return TyperCommand(name, help=outline.help, hidden=outline.hidden)
    commands = [TyperCommand(command, help=text) for command, text in outline.commands.items()]
    return TyperGroup(name=name, help=outline.help, hidden=outline.hidden, commands=commands)


class _Loaded(Mapping[str, Any]):
    """The commands themselves, by name; each is imported when it is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, OUTLINES[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in OUTLINES

    def __iter__(self) -> Iterator[str]:
        return iter(OUTLINES)

    def __len__(self) -> int:
        return len(OUTLINES)


def _load(name: str, outline: Outline) -> Any:
    part = getattr(import_module(outline.module), outline.attribute)
    whole = typer.Typer(pretty_exceptions_enable=False)
    if isinstance(part, typer.Typer):
        whole.add_typer(part, name=name)
    else:
        whole.command(name, hidden=outline.hidden)(part)
    return get_group(whole).commands[name]
