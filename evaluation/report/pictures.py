"""The pictures in the READMEs, by Chromium: `python -m evaluation.report.pictures outputs/demo`, or `make pictures`.

From a finished demo: its report, the dashboard, the annotation page, values of a critic, and what a served policy
answers and leaves in the dashboard. Minutes, most of them for two engines and simulated users.
"""

import argparse
import contextlib
import html
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT, SERVING = ROOT / "evaluation" / "report", ROOT / "rlhf_trl_ext" / "serving"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
WAIT = "--virtual-time-budget=8000"  # ms, in which a page fetches what it shows
COLOURS = 255  # of the palette, which keeps a file small
LARGEST = 100_000
TERMINAL = "font: 14px/1.5 monospace; background: #16181c; color: #e6e6e6; margin: 1em; white-space: pre-wrap"
LIKED = 0.8  # gold reward from which a simulated user puts a thumb up


def screenshot(address: str, output: Path, width: int, height: int, top: int = 0) -> None:
    """Write `height` pixels, from `top` on, of a page. Raises FileNotFoundError without a browser, ValueError for a
    picture of more than 100 kB."""
    from PIL import Image

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = (f"--window-size={width},{top + height}", f"--user-data-dir={folder}", f"--screenshot={shot}", WAIT)
        subprocess.run([browser, *OPTIONS, *size, address], check=True, capture_output=True, timeout=120)
        piece = Image.open(shot).convert("RGB").crop((0, top, width, top + height))
        piece.quantize(COLOURS).save(output, optimize=True)
    if output.stat().st_size > LARGEST:
        raise ValueError(f"{output} has {output.stat().st_size:,} bytes, more than {LARGEST:,}: show less of the page.")
    print(f"{output.relative_to(ROOT)}: {output.stat().st_size:,} bytes", flush=True)


@contextlib.contextmanager
def dashboard(root: Path) -> Iterator[str]:
    """The address of a dashboard of the runs below a folder."""
    from evaluation.report.dashboard.app import address, listen, server
    from evaluation.report.dashboard.runs import LoggedRuns

    listening, running = listen("127.0.0.1", 0), server(LoggedRuns(root), "127.0.0.1")
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield address("127.0.0.1", listening)
    finally:
        running.should_exit = True
        thread.join()


@contextlib.contextmanager
def annotation(demo: Path, folder: Path) -> Iterator[str]:
    """The address of an annotation page on which somebody has written a name."""
    import gradio

    from evaluation.verdicts.annotation import Annotation
    from evaluation.verdicts.annotation_page import page
    from rlhf_trl_ext.data.samples import read_samples

    sft, ppo = (read_samples(demo / f"samples-{name}" / "samples.jsonl") for name in ("sft", "ppo"))
    blocks = page(Annotation(sft, {"ppo": ppo}, folder, 300, 0))
    name = next(own for own in blocks.blocks.values() if isinstance(own, gradio.Textbox) and own.label == "Your name")
    name.value = "Ann"
    blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
    try:
        yield blocks.local_url
    finally:
        blocks.close()


def serve(demo: Path, folder: Path, asked: int = 60) -> tuple[str, str]:
    """Serve two policies to simulated users, the traffic going to `folder`; returns a curl line and its answer."""
    from rlhf_trl_ext.data.embedded import Embedded

    traffic = folder / "traffic" / "traffic.sqlite"
    words = [f"policies={{current: {demo / 'sft'}, candidate: {demo / 'ppo'}}}", f"output_root={folder}", "port=0"]
    words += [f"reward.path={demo / 'reward'}", "reward.share=1.0", f"traffic={traffic}"]
    process = subprocess.Popen([sys.executable, "-m", "launchers.serve", *words], stdout=subprocess.PIPE, text=True)
    try:
        url, curl = re.search(r"http://\S+:\d+", process.stdout.readline())[0], process.stdout.readline().strip()
        curl = curl.replace("Where is my umbrella?", "I am Nora. I lost my blue umbrella in the library.")
        answer = subprocess.run(["bash", "-c", f"{curl} --silent"], capture_output=True, text=True, check=True).stdout
        for row in Embedded().load("prompts").select(range(asked)):
            _ask(url, row["prompt"][0]["content"])
        _wait_for_rewards(traffic)
    finally:
        process.terminate()
        process.wait()
    return curl, answer


def _ask(url: str, prompt: str) -> None:
    """Ask both policies; a thumb for each reply, and which of the two is preferred, by the gold reward."""
    import httpx

    from rlhf_trl_ext.rewards import gold

    scored = []
    for model in ("current", "candidate"):
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 1.0}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
        score = gold.score(gold.read_facts(prompt), reply["choices"][0]["message"]["content"])
        scored.append((score, reply["id"]))
        thumb = {"id": reply["id"], "thumb": "up" if score >= LIKED else "down", "user": "simulated"}
        httpx.post(f"{url}/v1/feedback", json=thumb).raise_for_status()
    (_, worse), (_, better) = sorted(scored)
    if scored[0][0] != scored[1][0]:
        preference = {"id": better, "preferred_over": worse, "user": "simulated"}
        httpx.post(f"{url}/v1/feedback", json=preference).raise_for_status()


def _wait_for_rewards(traffic: Path, seconds: float = 90) -> None:
    """Until the reward model, which scores in the background, has seen every answer."""
    from rlhf_trl_ext.serving.traffic import read

    end = time.monotonic() + seconds
    while time.monotonic() < end and any(answer["reward"] is None for answer in read(traffic)):
        time.sleep(1)


def values(demo: Path, output: Path) -> None:
    """A page of what the critic of GRPO-VI thinks of four samples."""
    samples = demo / "samples-grpo_vi" / "samples.jsonl"
    command = [sys.executable, "-m", "evaluation.report.value_picture", "--policy", demo / "grpo_vi"]
    subprocess.run([*command, "--samples", samples, "--rows", *"0123", "--output", output], check=True, stdout=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished experiment=demo")
    demo = parser.parse_args().demo

    from evaluation.report.page import report

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = report(str(demo), pdf=False, output=str(folder / "report.html"))["html"]
        screenshot(made.as_uri(), REPORT / "demo.png", 1080, 900)
        values(demo, folder / "values.html")
        screenshot((folder / "values.html").as_uri(), REPORT / "values.png", 1000, 560)
        with dashboard(demo.parent) as url:
            screenshot(url, REPORT / "dashboard.png", 1400, 900)
        with annotation(demo, folder) as url:
            screenshot(url, ROOT / "evaluation" / "verdicts" / "annotate.png", 1000, 700)
        curl, answer = serve(demo.resolve(), folder / "outputs")
        text = html.escape(f"$ {curl}\n{answer}")
        (folder / "curl.html").write_text(f'<body style="{TERMINAL}">{text}')
        screenshot((folder / "curl.html").as_uri(), SERVING / "curl.png", 1000, 150)
        with contextlib.chdir(folder), dashboard(Path("outputs")) as url:
            screenshot(url, SERVING / "traffic.png", 1400, 860)


if __name__ == "__main__":
    main()
