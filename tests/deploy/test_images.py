"""Images by digest: what `python -m tests.deploy.images` writes, with a real registry where there is one."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from claimsvc.embedded import free_port
from tests.deploy.files import ROOT
from tests.deploy.images import FILES, ask_registry, images, pinned
from tests.support.waiting import until

_DIGEST = f"sha256:{'a' * 64}"


def test_either_every_image_has_a_digest_or_none() -> None:
    """The digests come from the registry; a file that has been pinned halfway is none."""
    digests = [digest for file in FILES for digest in images((ROOT / file).read_text(encoding="utf-8")).values()]
    assert len(digests) >= 6
    assert all(digests) or not any(digests)


@pytest.mark.parametrize("file", FILES)
def test_pinning_changes_nothing_but_the_digests(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    once = pinned(text, lambda name: _DIGEST)
    assert set(images(once).values()) == {_DIGEST}
    assert once.count(_DIGEST) == len(images(text)), "each is named in one place"
    assert pinned(once, lambda name: _DIGEST) == once
    newer = pinned(once, lambda name: f"sha256:{'b' * 64}")
    assert pinned(newer, lambda name: _DIGEST) == once


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry without images, as host and port."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        pytest.skip("needs Debian's packages docker-registry and skopeo")
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "images")}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": address}}))
    with subprocess.Popen([program, "serve", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            yield address
        finally:
            process.kill()


async def test_the_digest_is_that_of_the_registry(registry: str, tmp_path: Path) -> None:
    layout = _image(tmp_path / "layout")
    target = f"{registry}/shop/demo:1.2.3"
    copy = [
        "skopeo",
        "copy",
        "--all",
        "--dest-tls-verify=false",
        "--insecure-policy",
        f"oci:{layout}:demo",
        f"docker://{target}",
    ]

    def pushed() -> bool:
        return subprocess.run(copy, capture_output=True, timeout=30).returncode == 0

    await until(pushed, "the registry takes an image")
    (index,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert pinned(f"FROM {target} AS base\n", lambda name: ask_registry(name, "--tls-verify=false")) == (
        f"FROM {target}@{index['digest']} AS base\n"
    )
    with pytest.raises(SystemExit, match=r"no digest of .*shop/none:1\.0"):
        ask_registry(f"{registry}/shop/none:1.0", "--tls-verify=false")


def _image(folder: Path) -> Path:
    """An image for two platforms, without files, in the layout of the Open Container Initiative."""
    (folder / "blobs" / "sha256").mkdir(parents=True)

    def blob(kind: str, content: dict[str, object]) -> dict[str, object]:
        media = f"application/vnd.oci.image.{kind}.v1+json"
        data = json.dumps({"schemaVersion": 2, "mediaType": media, **content}).encode()
        digest = sha256(data).hexdigest()
        (folder / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    manifests = []
    for architecture in ("amd64", "arm64"):
        platform = {"architecture": architecture, "os": "linux"}
        config = blob("config", {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
        manifests.append({**blob("manifest", {"config": config, "layers": []}), "platform": platform})
    index = {**blob("index", {"manifests": manifests}), "annotations": {"org.opencontainers.image.ref.name": "demo"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder
