"""Fuzzes targets: `python -m tests.fuzz --seconds 60`, or one of them with its name.

Each target runs in a process of its own, or all of them take turns in one (`--together`), which starts once. Exits
with 1 if an input failed; it is written to a file, and `python -m tests.fuzz NAME --input FILE` runs it again.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Of CPU, for an input of at most so many bytes: a hundred times what the slowest one takes.
MOST_SECONDS = 1.0
MOST_BYTES = 8192
# libFuzzer's limits: a hang is none of CPU, and memory does not grow.
_HANG_SECONDS = 20
_MEMORY_MB = 2048


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="the name of one target; all of them, one after the other, if absent")
    parser.add_argument("--seconds", type=int, default=60, help="how long, all targets together (60)")
    parser.add_argument("--together", action="store_true", help="all targets in turns in one process")
    parser.add_argument("--input", type=Path, help="run this file alone, without fuzzing")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in a process of its own already
    options = parser.parse_args()
    if options.input is not None:
        from tests.fuzz.targets import TARGETS

        TARGETS[options.target](options.input.read_bytes())
        return 0
    if options.here:
        return _fuzz(options.target, options.seconds)
    from tests.fuzz.seeds import SEEDS

    names = [options.target] if options.target else [""] if options.together else list(SEEDS)
    failed = []
    # Equal shares. Each target takes some seconds more to start.
    seconds = max(1, options.seconds // len(names))
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", *([name] if name else []), "--here"]
        if subprocess.run([*command, "--seconds", str(seconds)]).returncode != 0:
            failed.append(name or "together")
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}; the inputs are in the files that are named above\n")
    return bool(failed)


def _fuzz(name: str | None, seconds: int) -> int:
    try:
        import atheris
    except ImportError:
        sys.stderr.write("atheris is not installed: it has wheels for Linux on x86-64 with Python 3.11 to 3.14\n")
        return 1
    # Instrumented as it is imported, so that new branches are noticed.
    with atheris.instrument_imports(include=["claimsvc", "jwt", "opentelemetry.trace", "json.decoder"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS

    names = [name] if name else list(TARGETS)

    def one(data: bytes) -> None:
        if name is None:
            # The first byte chooses.
            chosen, data = names[data[0] % len(names) if data else 0], data[1:]
        else:
            chosen = name
        started = time.process_time()
        TARGETS[chosen](data)
        took = time.process_time() - started
        assert took < MOST_SECONDS, f"{chosen}: {len(data)} bytes took {took:.2f} s"

    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(names):
            for place, seed in enumerate(SEEDS[each]):
                start = b"" if name else bytes([number])
                (Path(folder) / f"{each}-{place}").write_bytes(start + seed)
        flags = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-timeout={_HANG_SECONDS}", "-len_control=0"]
        quiet = ["-verbosity=0", "-print_final_stats=1", f"-rss_limit_mb={_MEMORY_MB}"]
        atheris.Setup([sys.argv[0], *flags, *quiet, f"-artifact_prefix=fuzz-{name or 'together'}-", folder], one)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
