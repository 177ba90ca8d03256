"""Brings the schema up to date by running the Alembic migrations of the `migrations` folder."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def migrate(database_url: str) -> None:
    """Upgrade the schema to the newest revision. Several processes may call it at once: one works, the rest wait.

    Not to be called from a running event loop: the migrations run in a loop of their own.
    """
    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["database_url"] = database_url
        command.upgrade(config, "head")


def newest_revision() -> str:
    """The schema revision that this version of the service was written for."""
    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        head = ScriptDirectory.from_config(config).get_current_head()
    if head is None:
        raise RuntimeError("the migrations folder holds no revision")
    return head
