"""Writes the dashboards: `python -m scripts.dashboards` puts them into deploy/grafana/dashboards/."""

from scripts.dashboards.rendered import FOLDER, rendered

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
