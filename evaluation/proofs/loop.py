"""From a served policy and back: `python -m evaluation.proofs.loop --seeds 0 1 2`, or `make loop`.

The demo's SFT policy is exported to ONNX and served; simulated users ask every prompt twice and prefer the reply of
higher gold reward, with the noise of the embedded task; their feedback trains the policy on (DPO); both are compared on
held-out prompts by the gold reward. Everything is done by the launchers, as a user would.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from rlhf_trl_ext.data.embedded import Embedded
from rlhf_trl_ext.rewards import gold

NOISE = 0.10  # of the users, in gold units
DPO = ("max_steps=60", "learning_rate=2e-4", "lr_scheduler_type=cosine", "warmup_steps=5")
COMMON = ("per_device_train_batch_size=32", "logging_steps=20")


def launch(name: str, *words: str) -> None:
    """Run a launcher. Raises RuntimeError with the end of what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", f"launchers.{name}", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"launchers.{name} {' '.join(words)}: {done.stderr[-2000:]}")


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


def loop(seed: int, folder: Path, asked: int) -> dict:
    """One walk; returns seconds, preferences and the evaluation's row of the new policy."""
    begin, root = time.perf_counter(), folder / f"seed{seed}"
    common = [f"seed={seed}", f"output_root={root}"]
    launch("train", "algorithm=sft", "experiment=demo", *common, f"output_dir={root}/served")
    words = [f"policy={root}/served", "format=onnx", "prompts=16", f"output={root}/export"]
    launch("export", *words, f"seed={seed}", f"output_root={root}")
    rows = Embedded(seed=seed).load("prompts").select(range(asked))
    with Served(root / "export", root / "traffic" / "traffic.sqlite") as served:
        given = users(served.url, [row["prompt"][0]["content"] for row in rows], seed)
    words = [f"model.model_name_or_path={root}/served", f"output_dir={root}/continued"]
    words += [f"args.{setting}" for setting in (*DPO, *COMMON)]
    launch("train", "algorithm=dpo", "experiment=continue", *common, *words)
    for name in ("served", "continued"):
        words = [f"policy={root}/{name}", "reward=gold", f"output_dir={root}/samples-{name}", "samples.batch_size=128"]
        launch("generate", *common, *words, "samples.max_new_tokens=28", "samples.max_prompts=384")
    words = [f"baseline={root}/samples-served/samples.jsonl", "judge=gold", f"output={root}/evaluation.json"]
    launch("evaluate", *words, f"policies={{continued: {root}/samples-continued/samples.jsonl}}", f"output_root={root}")
    results = json.loads((root / "evaluation.json").read_text())
    means = [row["gold_reward_mean"] for row in (results["baseline_result"], results["policies"]["continued"])]
    return {**results["policies"]["continued"], "given": given, "means": means, "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=600, help="asked twice each")
    parser.add_argument("--output", type=Path, default=Path("outputs/loop"))
    given, begin = parser.parse_args(), time.perf_counter()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(
        "| seed | preferences | gold served | gold continued | win rate | 95 % interval | seconds |",
        "|---" * 7 + "|",
        sep="\n",
    )
    better = []
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for seed, row in zip(
            given.seeds, pool.map(lambda s: loop(s, given.output, given.prompts), given.seeds), strict=True
        ):
            low, high = row["win_rate_ci"]
            better.append(low > 0.5)
            means = " | ".join(f"{mean:.3f}" for mean in row["means"])
            cells = f"{row['given']} | {means} | {row['win_rate']:.3f} | {low:.3f} - {high:.3f} | {row['seconds']:.0f}"
            print(f"| {seed} | {cells} |", flush=True)
    print(
        f"{sum(better)} of {len(better)} better by gold, interval above one half; {time.perf_counter() - begin:.0f} s"
    )
    sys.exit(0 if all(better) else 1)


if __name__ == "__main__":
    main()
