"""Bring the schema up to date by running the Alembic migrations of the `migrations` folder."""

import re
from importlib.resources import as_file, files

from claimsvc.errors import UnavailableError
from claimsvc.postgres.database import Database

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


class SchemaCheck:
    """`ports.HealthCheck`: that PostgreSQL answers, with the schema of this version or a newer one.

    Args:
        database: where the statement runs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest_revision = newest_revision()

    async def __call__(self) -> None:
        rows = await self._database.fetch("SELECT version_num FROM alembic_version")
        found = str(rows[0][0]) if rows else "none"
        # Revisions are numbers of four digits. A newer schema is accepted: instances of the previous version go on
        # while the next one is rolled out, so every migration must leave them working.
        if found < self._newest_revision:
            raise UnavailableError(
                f"the database's schema is at revision {found}, not {self._newest_revision}; run `claimsvc migrate`",
                dependency="postgresql",
            )
