"""The programs that a measurement needs beside the servers: the load generator, and the viewers of a console."""

import subprocess
import sys

import orjson

from tests.bench.plan import Plan, Result


class BenchError(Exception):
    """The bench cannot go on; the message says why."""


class LoadGenerator:
    """The process that makes the claims. It ends when its standard input does, so it cannot outlive us."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us to act on
        )

    def measure(self, plan: Plan) -> Result:
        """Carry out a plan.

        Raises:
            BenchError: the process ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(plan) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("The load generator ended before it was done; what it said is above.")
        return Result(**orjson.loads(line))

    def close(self) -> None:
        """End it, in the middle of a plan if need be."""
        self._process.kill()
        self._process.communicate()


class Viewers:
    """The process that watches a console. It ends when its standard input does, so it cannot outlive us."""

    def __init__(self, port: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.viewers", str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise BenchError("The viewers of the console ended before they saw anything; what they said is above.")

    def close(self) -> float:
        """End them. The result is how many pictures a second each had."""
        said, _ = self._process.communicate()
        return float(said or 0)
