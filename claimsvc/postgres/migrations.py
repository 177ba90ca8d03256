"""Upgrades and checks the schema, with the Alembic migrations in the `migrations` folder."""

import re
from importlib.resources import as_file, files

from claimsvc.errors import UnavailableError
from claimsvc.postgres.database import Database

_REVISION = re.compile(r"(\d{4})_\w+\.py", re.ASCII)


def migrate(database_url: str) -> None:
    """Upgrade the schema to the newest revision.

    Several processes may call it at once: one upgrades, the others wait. Do not call it in a running event loop,
    because the migrations run their own.

    Args:
        database_url: the SQLAlchemy URL of the database.
    """
    # Imported here because importing takes 250 ms.
    from alembic import command
    from alembic.config import Config

    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["database_url"] = database_url
        command.upgrade(config, "head")


def newest_revision() -> str:
    """Return the schema revision that this version of the service was written for.

    Revisions are four digits at the start of their file's name. A test compares this with Alembic's head.
    """
    names = [entry.name for entry in (files("migrations") / "versions").iterdir()]
    return max(found[1] for name in names if (found := _REVISION.fullmatch(name)))


class SchemaCheck:
    """`ports.HealthCheck`: PostgreSQL answers, and its schema is that of this version or newer.

    Args:
        database: where the statement runs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest_revision = newest_revision()

    async def __call__(self) -> None:
        rows = await self._database.fetch("SELECT version_num FROM alembic_version")
        found = str(rows[0][0]) if rows else "none"
        # A newer schema is accepted, because instances of the previous version continue to run during an upgrade. Every
        # migration must keep them working.
        if found < self._newest_revision:
            raise UnavailableError(
                f"the database's schema is at revision {found}, not {self._newest_revision}; run `claimsvc migrate`",
                dependency="postgresql",
            )
