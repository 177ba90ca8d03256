"""The Lua scripts of the folder `lua`, callable as functions."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


class Script:
    """A Lua script. It is called by its digest, and sent in full when the master does not have it cached.

    Args:
        file_name: in the folder `lua`.
    """

    def __init__(self, file_name: str) -> None:
        self.text = files("claimsvc.redis").joinpath("lua", file_name).read_text("ascii")
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, master: Redis, keys: Sequence[str], *arguments: str | int) -> Any:
        try:
            return await master.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return await master.execute_command("EVAL", self.text, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
