"""Runs a module in another network namespace.

`python -m tests.support.injectors.inside NAMESPACE MODULE ARGUMENTS ...`

The process stays the same, so its signals and its process id mean the module.
"""

import os
import sys

from tests.support.injectors.namespaces import set_namespace


def main(arguments: list[str]) -> None:
    path, *module = arguments
    with open(path, "rb") as namespace:  # noqa: PTH123 - a file of /proc
        set_namespace(namespace.fileno())
    os.execv(sys.executable, [sys.executable, "-m", *module])


if __name__ == "__main__":
    main(sys.argv[1:])
