"""The Python of serving's README, run as it stands there."""

import re
import subprocess
import sys
import time

import httpx
import pytest
from conftest import ROOT

from rlhf_trl_ext.serving.engine import _free_port


@pytest.mark.slow
def test_the_app_of_the_readme_answers_under_uvicorn(tiny, tmp_path):
    """Its own process, with the engine that is the default; only the port is another."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "rlhf_trl_ext/serving/README.md").read_text(), flags=re.S)
    assert "from rlhf_trl_ext.serving import create_app" in snippet and "port=8000" in snippet
    (tmp_path / "outputs" / "demo").mkdir(parents=True)
    (tmp_path / "outputs" / "demo" / "dpo").symlink_to(tiny)
    port = _free_port()
    (tmp_path / "app.py").write_text(snippet.replace("port=8000", f"port={port}"))
    environment = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=environment) as process:
        try:
            answer = _asked(f"http://127.0.0.1:{port}/v1/chat/completions", process)
        finally:
            process.terminate()
    assert answer["model"] == "dpo" and answer["choices"][0]["message"]["role"] == "assistant"
    assert (tmp_path / "outputs" / "traffic" / "traffic.sqlite").exists()


def _asked(url, process):
    body = {"messages": [{"role": "user", "content": "Where is my umbrella?"}], "max_tokens": 4}
    while process.poll() is None:
        try:
            return httpx.post(url, json=body, timeout=60).raise_for_status().json()
        except httpx.ConnectError:
            time.sleep(0.2)
    raise AssertionError(f"the app ended with {process.returncode}")
