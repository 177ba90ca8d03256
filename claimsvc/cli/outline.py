"""The commands of `claimsvc` as help and completion show them, without importing their modules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


@dataclass(frozen=True, slots=True)
class Outline:
    """Where a command is defined, and its help text.

    `help` is the first paragraph of the command's own help, on one line. `commands` lists the commands of a group with
    theirs, if help on the group can be shown from here.
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
        "Run the service in production, on the servers in CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS.",
    ),
    "worker": Outline(
        "claimsvc.cli.serving",
        "worker",
        "Run one of the worker processes of `serve`, which starts them itself.",
        hidden=True,
    ),
    "migrate": Outline(
        "claimsvc.cli.maintenance",
        "migrate",
        "Create or upgrade the schema of CLAIMSVC_DATABASE_URL. Repeated and simultaneous runs are safe.",
    ),
    "reconcile": Outline(
        "claimsvc.cli.maintenance",
        "reconcile",
        "Reset the counters in Redis that differ from PostgreSQL. The service also does this by itself.",
    ),
    "sweep": Outline(
        "claimsvc.cli.maintenance",
        "sweep",
        "Return the units of expired holds. The service also does this by itself.",
    ),
    "purge": Outline(
        "claimsvc.cli.maintenance",
        "purge",
        "Delete expired responses, replaced lists, and coupons that ended long ago. The service also does this "
        "by itself.",
    ),
    "doctor": Outline(
        "claimsvc.cli.doctor",
        "doctor",
        "Check the settings, the database, the schema and the masters; report what is wrong and how to fix it.",
    ),
    "probe": Outline(
        "claimsvc.cli.probing",
        "probe",
        "Make a real claim over HTTP and return it: does claiming work, as a user sees it?",
    ),
    "audit": Outline(
        "claimsvc.cli.audit",
        "audit",
        "List who did what and when, newest first. With --subject-type claim, it includes claims made.",
    ),
    "coupon": Outline(
        "claimsvc.cli.coupons",
        "app",
        "Create, change and look up coupons, directly in the database.",
        commands={
            "create": "Create a coupon. Audited.",
            "change": "Change a coupon. Omitted options keep their values; 'none' removes a value that may be absent. "
            "Audited.",
            "archive": "Archive a coupon for good: it cannot be claimed and is not listed. Its claims stay. Audited.",
            "list": "List coupons by name.",
            "show": "Show a coupon, its rules, and its first 1000 claimants, oldest first.",
        },
    ),
    "claims": Outline(
        "claimsvc.cli.claims",
        "app",
        "List, export and redeem claims, directly in the database.",
        commands={
            "export": "Print all claims of a coupon with codes as CSV, oldest first, ended ones too. Exit "
            "status 1: it is incomplete.",
            "list": "List a user's claims of all coupons, newest first, with their codes.",
            "redeem": "Redeem a claim, and its code if it has one: once, unless it has more uses. Audited.",
            "unredeem": "Take back the last redemption of a claim, because it fell through. Audited.",
        },
    ),
    "codes": Outline(
        "claimsvc.cli.codes",
        "app",
        "Add codes to coupons, look them up and redeem them, directly in the database.",
        commands={
            "upload": "Add the codes of a file to a coupon: all of them, or none. Exit status 1: a row was refused.",
            "generate": "Generate random codes and add them to a coupon.",
            "show": "Show a code: its coupon, its claim and user, and whether it was redeemed.",
            "redeem": "Redeem a code. Each code can be redeemed once, unless it has more uses.",
            "unredeem": "Take back the last redemption of a code, because it fell through. Audited.",
        },
    ),
    "key": Outline(
        "claimsvc.cli.keys",
        "app",
        "Create, list and revoke keys.",
        commands={
            "create": "Create a key. It is shown only once; the service stores its SHA-256 digest.",
            "list": "List all keys, oldest first, including expired and revoked ones. The keys themselves "
            "are not stored.",
            "revoke": "Revoke a key. Instances that used it recently may accept it for up to 5 s more.",
        },
    ),
    "locks": Outline(
        "claimsvc.cli.locks",
        "app",
        "List the locks that are held now, and by which instance; release a lock by force.",
    ),
    "tickets": Outline(
        "claimsvc.cli.tickets",
        "app",
        "List the queues and the tickets in them, pause a queue, and requeue or discard a ticket that is dead.",
        commands={
            "queues": "List the queues in which tickets wait, are started or are dead letters.",
            "list": "List the tickets of a coupon in the order in which they joined; ended ones for a day.",
            "show": "Show a ticket: its place in the queue, or what became of it.",
            "requeue": "Try the claim of a ticket that is a dead letter again, at once. Audited.",
            "discard": "Give a ticket that is a dead letter up for good. Its user can claim again. Audited.",
            "pause": "Stop starting the tickets of a coupon. Users can still join its queue. Audited.",
            "resume": "Start the tickets of a coupon again. Audited.",
        },
    ),
    "dead-letters": Outline(
        "claimsvc.cli.tickets",
        "dead_letters",
        "List what the service failed too often to do, oldest first: tickets, to be requeued or discarded.",
    ),
    "user": Outline(
        "claimsvc.cli.users",
        "app",
        "Erase users, directly in the database.",
        commands={
            "erase": "Erase a user: replace the id in all claims, and remove it from lists and stored "
            "responses. Audited.",
        },
    ),
    "lists": Outline(
        "claimsvc.cli.lists",
        "app",
        "Set the lists of users who may or may not claim a coupon, directly in the database.",
        commands={
            "load": "Replace a coupon's list. Claims see the old list or the new one, never a mixture of both.",
            "remove": "Remove a coupon's list. The coupon's rules and its other list still apply.",
        },
    ),
}


class Group(TyperGroup):
    """A group whose parameters need no pydantic, so that help on its commands comes at once."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`, off by default: typer imports pydantic to convert its own default, which is None."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class Commands(Group):
    """The commands of `OUTLINES`: help and completion see the outlines, and a command is imported when it is run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Loaded()  # type: ignore[assignment] # read-only

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of help."""
        return list(OUTLINES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The outline of a command, for help and completion."""
        return _outlined(cmd_name, OUTLINES[cmd_name]) if cmd_name in OUTLINES else None

    def get_params(self, ctx: Any) -> list[Any]:
        """The options; those that install completion are off by default, for the reason of `Group.get_help_option`."""
        for parameter in self.params:
            if parameter.name in ("install_completion", "show_completion"):
                parameter.default = False
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left for the command. Help on a group is shown here, from the outlines alone."""
        if len(args) == 2 and args[1] in ctx.help_option_names and args[0] in OUTLINES and OUTLINES[args[0]].commands:
            self.get_command(ctx, args[0]).make_context(args[0], args[1:], parent=ctx)  # exits after showing it
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. An argument of the wrong type is told in words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from claimsvc.cli.usage import in_words  # imported here, because help must not wait for it

            raise in_words(error) from error.__cause__

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, its name, and the arguments after it."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = self.commands[args[0]]
        return name, command, rest


def _outlined(name: str, outline: Outline) -> TyperCommand | TyperGroup:
    if not outline.commands:
        return TyperCommand(name, help=outline.help, hidden=outline.hidden)
    commands = [TyperCommand(command, help=text) for command, text in outline.commands.items()]
    return TyperGroup(name=name, help=outline.help, hidden=outline.hidden, commands=commands)


class _Loaded(Mapping[str, Any]):
    """The commands by name; each is imported when it is looked up."""

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
        whole.add_typer(part, name=name, cls=Group)
    else:
        whole.command(name, hidden=outline.hidden)(part)
    return get_group(whole).commands[name]
