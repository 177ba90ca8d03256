"""All dashboards, by file name."""

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.claims import claims
from dashboards.dependencies import dependencies
from dashboards.lock_contention import lock_contention
from dashboards.overview import overview

_DASHBOARDS = {
    "overview.json": overview,
    "claims.json": claims,
    "lock-contention.json": lock_contention,
    "dependencies.json": dependencies,
}


def rendered() -> dict[str, str]:
    """Return the JSON of each dashboard by file name."""
    encoder = JSONEncoder(indent=2, ensure_ascii=False)
    return {name: encoder.encode(build()) + "\n" for name, build in _DASHBOARDS.items()}
