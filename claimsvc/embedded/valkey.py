"""An embedded Valkey (or Redis) master."""

import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claimsvc.embedded.programs import ValkeyProgram
from claimsvc.embedded.servers import Server
from claimsvc.embedded.state import StateDir


class ValkeyServer(Server):
    """One independent master without a password. It listens only on 127.0.0.1.

    Args:
        state: the folder that keeps its data between runs.
        program: the server to run.
        number: of the master, from 1.
        durable: whether every write is on disk before it is answered. A Redlock needs this: a master that restarts
            without its last writes may grant a lock twice. Tests turn it off for speed.
    """

    _stop_signals = (signal.SIGTERM,)

    def __init__(self, state: StateDir, program: ValkeyProgram, number: int, *, durable: bool = True) -> None:
        super().__init__(state, f"valkey-{number}", durable=durable)
        self.name = f"{program.name} master {number}"
        self._program = program

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str | Path]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if self._durable else "everysec",
        }
        return [self._program.server, *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _is_ready(self) -> bool:
        if not self.running:
            return False
        client = redis.Redis(
            host="127.0.0.1", port=self.port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        try:
            # The server on the port must be the one that was started, with its data loaded.
            info = client.info()
            return info["process_id"] == self.pid and not info["loading"]
        except redis.RedisError:
            return False
        finally:
            client.close()
