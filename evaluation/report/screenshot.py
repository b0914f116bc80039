"""A piece of a report as a small PNG, by Chromium: `python -m evaluation.report.screenshot outputs/demo demo.png`."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
COLOURS = 64  # of the palette, which keeps the file below 150 kB


def screenshot(page: Path, output: Path, width: int, top: int, height: int) -> None:
    """Write `height` pixels, from `top` on, of a local HTML page. Raises FileNotFoundError without a browser."""
    from PIL import Image

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = (f"--window-size={width},{top + height}", f"--user-data-dir={folder}", f"--screenshot={shot}")
        command = [browser, *OPTIONS, *size, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        piece = Image.open(shot).convert("RGB").crop((0, top, width, top + height))
        piece.quantize(COLOURS).save(output, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder that launchers.report reads")
    parser.add_argument("output", type=Path, help="the PNG")
    parser.add_argument("--width", type=int, default=1080)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--height", type=int, default=880)
    arguments = parser.parse_args()

    from evaluation.report.page import report

    written = report(str(arguments.results), pdf=False)
    try:
        screenshot(written["html"], arguments.output, arguments.width, arguments.top, arguments.height)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
