"""Speed, memory and planner on a GPU, in at most twelve minutes of an H100, the most important first (`make gpu`).

The model is a Llama of the sizes of Qwen2.5-0.5B, 0.49 B random parameters, built from its configuration: nothing is
downloaded. Every run is a process of its own. `--cpu --tiny` runs the same code in a minute or two anywhere.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HALF_A_BILLION = {"hidden": 896, "heads": 14, "kv_heads": 2, "head_dim": 64, "intermediate": 4864, "layers": 24}
HALF_A_BILLION |= {"vocabulary": 151936}
TINY = {"hidden": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "intermediate": 128, "layers": 2, "vocabulary": 1024}
GROUP, PPO = {"rows": 64, "tokens": 256}, {"rows": 32, "tokens": 128}
# Name, size, batches, what it is compared with.
RUNS = [
    ("grpo", GROUP, 5, None),
    ("grpo_trl", GROUP, 3, "grpo"),
    ("ppo", PPO, 5, None),
    ("ppo_trl112", PPO, 4, "ppo"),
    ("grpo_vi", GROUP, 4, "grpo_trl"),
    ("grpo_qlora", {"rows": 64, "tokens": 128}, 3, None),
]
SECTIONS = (*(run[0] for run in RUNS), "planner", "tests")


class Table:
    """Runs of this program's own processes, printed as they come; nothing that fails ends it."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder, self.options, self.results, self.deadline = folder, options, {}, time.time() + 60 * options.minutes

    def process(self, command: list[str], **environment: str) -> Iterator[str]:
        """Lines of a process, killed at the deadline; its last words are shown if it fails."""
        process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        kept = []
        for line in process.stdout:
            kept = [*kept[-15:], line.rstrip()]
            yield line.rstrip()
            if time.time() > self.deadline:
                process.kill()
                print(f"  stopped: {self.options.minutes} minutes are over", flush=True)
        if process.wait() > 0:
            print("  failed:\n    " + "\n    ".join(kept), flush=True)

    def results_of(self, command: list[str], **environment: str) -> Iterator[dict]:
        """What a process prints as results."""
        for line in self.process(command, **environment):
            if line.startswith("RESULT "):
                yield json.loads(line.removeprefix("RESULT "))

    def run(self, name: str, size: dict, updates: int, other: str | None) -> None:
        """One run of a trainer, and how much faster it is, or ours is, than the other."""
        options = self.options
        if options.tiny:
            size, updates = {"rows": 8, "tokens": 8}, 2
        compiled = "off" if options.tiny else "on"
        arguments = {**size, "updates": updates, "cuda": not options.cpu, "compiled": compiled}
        python, further = sys.executable, {}
        if name == "grpo_qlora" and (options.cpu or importlib.util.find_spec("bitsandbytes") is None):
            return print(f"{name:<11} left out: it needs CUDA and bitsandbytes (pip install -e '.[quantization]')")
        if name == "ppo_trl112":
            if options.trl112 is None:
                return print(f"{name:<11} left out: --trl112 is needed, an interpreter or a folder with trl==1.12.0")
            if options.trl112.is_dir():
                further = {"PYTHONPATH": os.pathsep.join([str(options.trl112), os.environ.get("PYTHONPATH", "")])}
            else:
                python, further = str(options.trl112), {"PYTHONPATH": os.getcwd()}
        command = [python, "-m", "evaluation.proofs.gpu.runs", name, str(self.folder), json.dumps(arguments)]
        for figures in self.results_of(command, **further):
            self.results[name] = figures
            shares = ", ".join(f"{kind} {share:.0%}" for kind, share in figures["shares"].items())
            print(
                f"{name:<11}{size['rows']:>3} x {size['tokens']:<4} {figures['seconds']:7.3f} s a batch "
                f"(first {figures['first']:5.1f} s), {figures['tokens_per_second']:8.0f} tokens/s, "
                f"{figures['peak_mib']:7.0f} MiB   {shares}",
                flush=True,
            )
            if other in self.results:
                self.compare(*((name, other) if name == "grpo_vi" else (other, name)))

    def compare(self, ours: str, theirs: str) -> None:
        """Ratios of two runs."""
        mine, other = self.results[ours], self.results[theirs]
        speed, memory = other["seconds"] / mine["seconds"], mine["peak_mib"] / other["peak_mib"]
        print(f"            {ours} / {theirs}: {speed:.2f} times the speed, {memory:.2f} of the memory", flush=True)

    def planner(self) -> None:
        """Predicted against measured peaks."""
        further = ["--cpu"] * self.options.cpu + ["--first", "1"] * self.options.tiny
        rows = self.results["planner"] = []
        for row in self.results_of([sys.executable, "-m", "evaluation.proofs.gpu.planner", str(self.folder), *further]):
            rows.append(row)
            name = f"plan {row['algorithm']:<7}{row['model']:<9}{row['rows']:>3} x {row['tokens']:<4}"
            if "error" in row:
                print(name, row["error"], flush=True)
                continue
            error = f"{row['predicted'] / row['measured'] - 1:+7.1%}" if row["measured"] else ""
            measured = f"measured {row['measured']:6.0f} MiB" if row["measured"] else ""
            print(f"{name} predicted {row['predicted']:6.0f} MiB {measured} {error} {row['phase']} {row['further']}")
            sys.stdout.flush()

    def tests(self) -> None:
        """The tests that need a GPU."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "tests/gpu",
            "--tb=line",
            "-p",
            "no:cacheprovider",
        ]
        for line in self.process(command):
            self.results["tests"] = line
            if "Error" in line or "FAILED" in line or " passed" in line or " skipped" in line:
                print(f"tests       {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--trl112", type=Path, help="an interpreter with trl==1.12.0, or a folder that holds it")
    parser.add_argument("--minutes", type=float, default=12, help="what is not done by then is left out")
    parser.add_argument("--cpu", action="store_true", help="without a GPU, in float32")
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="a model of 0.1 M parameters, two batches of eight rows of eight tokens, not compiled, one row of the "
        "planner",
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu.json"))
    options = parser.parse_args()
    import torch

    from evaluation.proofs.memory.shapes import build_shape

    if not (options.cpu or torch.cuda.is_available()):
        parser.exit(2, "error: no CUDA device is found; --cpu --tiny shows that the code runs.\n")
    hardware = "CPU" if options.cpu else torch.cuda.get_device_name()
    print(f"on {hardware}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        table, sizes = Table(Path(name), options), TINY if options.tiny else HALF_A_BILLION
        dtype = "float32" if options.cpu else "bfloat16"
        build_shape(table.folder / "policy", dtype=dtype, **sizes)
        build_shape(table.folder / "reward", dtype=dtype, labels=1, **sizes)
        (table.folder / "policy-reward").symlink_to(table.folder / "reward")  # as the planner's runs call it
        steps = {run[0]: lambda run=run: table.run(*run) for run in RUNS}
        steps |= {"planner": table.planner, "tests": table.tests}
        for section in SECTIONS:
            if section in options.only and time.time() < table.deadline:
                steps[section]()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"hardware": hardware, "torch": torch.__version__, **table.results}, indent=2))


if __name__ == "__main__":
    main()
