"""A real browser for tests of pages."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")


def browse(address: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """The page as it is after four seconds of its own clock, its console messages, and the addresses it asked for."""
    log, profile = folder / "net.json", folder / "profile"
    options = ("--enable-logging=stderr", f"--log-net-log={log}", f"--user-data-dir={profile}")
    command = [BROWSER, *QUIET, *options, "--virtual-time-budget=4000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    events = json.loads(log.read_text())["events"]
    started = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # What the browser asks for itself comes from no page, "not an origin".
    asked = [own["url"] for own in started if own["initiator"] != "not an origin" and own["url"].startswith("http")]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked
