"""Pins the images of docker-compose.yml and the Dockerfile: `python -m tests.deploy.images` writes their digests.

It asks each image's registry through `skopeo`, which needs no daemon and keeps to this machine's mirrors and logins.
"""

import re
import subprocess
import sys
from collections.abc import Callable

from tests.deploy.files import PROJECT, ROOT

FILES = ("docker-compose.yml", "Dockerfile")
# An image that somebody else makes: a name with a version, and maybe a digest from before.
_IMAGE = re.compile(
    r"^(\s*image: |FROM )([\w./-]+(?::\d+/[\w./-]+)?:[\w.-]+)(?:@(sha256:[0-9a-f]{64}))?(?=\s|$)", re.MULTILINE
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(text: str) -> dict[str, str | None]:
    """The digest of each image that a file names, None where it has none; our own image is built, not pulled."""
    found = {name: digest or None for _, name, digest in _IMAGE.findall(text)}
    return {name: digest for name, digest in found.items() if not name.startswith(f"{PROJECT['name']}:")}


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """The file with the digest of each image behind its tag, in place of one from before."""
    digests = {name: digest_of(name) for name in images(text)}
    return _IMAGE.sub(
        lambda match: f"{match[1]}{match[2]}@{digests[match[2]]}" if match[2] in digests else match[0], text
    )


def ask_registry(name: str, *options: str) -> str:
    """The digest of the image's index of platforms, or of the image where there is one platform alone.

    Args:
        name: such as `postgres:18.6-trixie`; without a registry it is Docker Hub's.
        options: of `skopeo inspect`.

    Raises:
        SystemExit: there is no skopeo, or the registry does not know the image or cannot be reached.
    """
    command = ["skopeo", "inspect", "--no-tags", *options, "--format", "{{.Digest}}", f"docker://{name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise SystemExit("skopeo is missing: install it with the package manager of this system") from None
    digest = done.stdout.strip()
    if done.returncode != 0 or not _DIGEST.fullmatch(digest):
        raise SystemExit(f"no digest of {name}: {done.stderr.strip() or digest}")
    return digest


if __name__ == "__main__":
    # All are asked for before anything is written.
    written = {file: pinned((ROOT / file).read_text(encoding="utf-8"), ask_registry) for file in FILES}
    for file, text in written.items():
        (ROOT / file).write_text(text, encoding="utf-8")
        for name, digest in images(text).items():
            sys.stdout.write(f"{file}: {name}@{digest}\n")
