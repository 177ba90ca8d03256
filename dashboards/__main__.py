"""Write the JSON of every dashboard: `python -m dashboards`."""

from pathlib import Path

from dashboards.all import rendered

FOLDER = Path(__file__).parent / "grafana"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
