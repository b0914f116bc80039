"""From a served policy and back: `python -m evaluation.proofs.loop --seeds 0 1 2`, or `make loop`.

The demo's SFT policy is exported to ONNX and served; simulated users ask every prompt twice and prefer the reply of
higher gold reward, with the noise of the embedded task; `experiment=continue` trains the policy on their feedback (DPO)
and compares it with the served one on held-out prompts by the gold reward. Everything is done by the launchers, as a
user would, two seeds side by side.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx

from rlhf_trl_ext.data.embedded import Embedded
from rlhf_trl_ext.rewards import gold
from rlhf_trl_ext.stages.execution import HEAVY
from rlhf_trl_ext.stages.processes import Processes

NOISE = 0.10  # of the users, in gold units
DPO = (
    "{max_steps: 60, learning_rate: 2e-4, lr_scheduler_type: cosine, warmup_steps: 5, per_device_train_batch_size: 32}"
)
SAMPLES = "{max_new_tokens: 28, batch_size: 128, max_prompts: 384}"


class Launchers:
    """Runs launchers, whose packages are imported once for all; what they print goes to `folder`/log.txt."""

    def __init__(self, processes: Processes, folder: Path):
        self.processes, self.folder, self.seconds = processes, folder, {}
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, *words: str) -> None:
        """Raises RuntimeError with the reason where one fails."""
        begin, log = time.perf_counter(), self.folder / "log.txt"
        outcome = self.processes.run([sys.executable, "-m", f"launchers.{name}", *words], log)
        if outcome.code:
            raise RuntimeError(f"launchers.{name} {' '.join(words)}: {outcome.error} (see {log}).")
        self.seconds[name] = time.perf_counter() - begin


class Served:
    """`launchers.serve` with an exported policy; `url` is its address."""

    def __init__(self, export: Path, traffic: Path):
        words = [f"policy={export}", "engine=onnx", "port=0", "max_batch_size=2", f"traffic={traffic}"]
        command = [sys.executable, "-m", "launchers.serve", *words, f"output_root={traffic.parent}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("launchers.serve ended before it served.")
        self.url = re.search(r"http://\S+:\d+", line).group(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()


def users(url: str, prompts: list[str], seed: int) -> int:
    """Ask every prompt twice and prefer one reply; returns how many preferences were given."""
    generator, client = random.Random(seed), httpx.Client(timeout=60)

    def reply(prompt: str) -> dict:
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 1.0, "max_tokens": 28}
        body["seed"] = generator.randrange(2**31)
        answer = client.post(f"{url}/v1/chat/completions", json=body).raise_for_status().json()
        return {"id": answer["id"], "text": answer["choices"][0]["message"]["content"]}

    given = 0
    for prompt in prompts:
        facts, (first, second) = gold.read_facts(prompt), (reply(prompt), reply(prompt))
        gap = gold.score(facts, first["text"]) - gold.score(facts, second["text"])
        if first["text"] == second["text"]:
            continue
        if generator.random() > 1 / (1 + math.exp(-gap / NOISE)):
            first, second = second, first
        words = {"id": first["id"], "preferred_over": second["id"], "user": "simulated"}
        client.post(f"{url}/v1/feedback", json=words).raise_for_status()
        given += 1
    return given


def loop(seed: int, launch: Launchers, asked: int) -> dict:
    """One walk; returns seconds, preferences and the results of the pipeline that compares both policies."""
    begin, root = time.perf_counter(), launch.folder
    common = [f"seed={seed}", f"output_root={root}"]
    launch("train", "algorithm=sft", "experiment=demo", *common, f"output_dir={root}/served")
    launch("export", f"policy={root}/served", "format=onnx", "prompts=16", f"output={root}/export", *common)
    rows = Embedded(seed=seed).load("prompts").select(range(asked))
    asking = time.perf_counter()
    with Served(root / "export", root / "traffic" / "traffic.sqlite") as served:
        given = users(served.url, [row["prompt"][0]["content"] for row in rows], seed)
    launch.seconds["serve"] = time.perf_counter() - asking
    words = [f"finished={{sft: {root}/served}}", "dataset@dataset.rest=embedded", "reward=gold", "judge=gold", "jobs=1"]
    words += [f"stages.dpo.args={DPO}", f"samples={SAMPLES}", f"output_dir={root}/results"]
    launch("pipeline", "experiment=continue", *common, *words)
    results = json.loads((root / "results" / "results.json").read_text())
    means = [row["gold_reward_mean"] for row in (results["baseline_result"], results["policies"]["dpo"])]
    return {**results["policies"]["dpo"], "given": given, "means": means, "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=400, help="asked twice each")
    parser.add_argument("--output", type=Path, default=Path("outputs/loop"))
    given, begin = parser.parse_args(), time.perf_counter()
    if there := [folder for seed in given.seeds if (folder := given.output / f"seed{seed}").exists()]:
        parser.error(f"{there[0]} exists: remove it, or give another --output.")
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    columns = ("seed", "preferences", "gold served", "gold continued", "win rate", "interval", "seconds", "of them")
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", sep="\n", flush=True)
    processes = Processes([None] * min(2, os.cpu_count() or 1), modules=HEAVY)

    def row(seed: int) -> bool:
        launch = Launchers(processes, given.output / f"seed{seed}")
        result = loop(seed, launch, given.prompts)
        (low, high), means = result["win_rate_ci"], " | ".join(f"{mean:.3f}" for mean in result["means"])
        cells = f"{result['given']} | {means} | {result['win_rate']:.3f} | {low:.3f} - {high:.3f}"
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in launch.seconds.items())
        print(f"| {seed} | {cells} | {result['seconds']:.0f} | {parts} |", flush=True)
        return low > 0.5

    better = processes.map(row, given.seeds)
    print(
        f"{sum(better)} of {len(better)} better by gold, interval above one half; {time.perf_counter() - begin:.0f} s"
    )
    sys.exit(0 if all(better) else 1)


if __name__ == "__main__":
    main()
