"""Bring the schema up to date by running the Alembic migrations of the `migrations` folder."""

import re
from importlib.resources import as_file, files

_REVISION = re.compile(r"(\d{4})_\w+\.py", re.ASCII)


def migrate(database_url: str) -> None:
    """Upgrade the schema to the newest revision. Several processes may call it at once: one works, the rest wait.

    Not to be called from a running event loop: the migrations run in a loop of their own.
    """
    # Imported here: it takes a quarter of a second, and only this needs it.
    from alembic import command
    from alembic.config import Config

    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["database_url"] = database_url
        command.upgrade(config, "head")


def newest_revision() -> str:
    """The schema revision that this version of the service was written for.

    Revisions are numbers of four digits, and begin the names of their files; a test compares this with Alembic's head.
    """
    names = [entry.name for entry in (files("migrations") / "versions").iterdir()]
    return max(found[1] for name in names if (found := _REVISION.fullmatch(name)))
