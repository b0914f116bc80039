"""One cell of the benchmark: an algorithm with a learning rate and a seed on a landscape, by its real trainer.

    python -m evaluation.comparison.landscapes.cell <work> <results>

trains the cells of `<work>/cells.json` that no other process with the same folder has taken (see `Benchmark._train`).
"""

import functools
import gc
import hashlib
import json
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from rlhf_trl_ext.configuration.checks import as_json
from rlhf_trl_ext.files import read_mark, write
from rlhf_trl_ext.stages.identity import versions
from rlhf_trl_ext.stages.sources import source

MODULE = __spec__.name  # its own name where it runs as __main__ too
# Nothing here changes what is learnt: no device but the processor, nothing written, nothing printed.
QUIET = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Cell:
    """settings: plain data that decides the result (see `Benchmark.cell`).

    names: landscape, algorithm, learning rate, factor of the critic's own, seed.
    """

    names: tuple[str, str, float, float, int]
    settings: dict

    @functools.cached_property
    def file(self) -> str:
        """Name of the cell's result: its fingerprint is that of settings, code and package versions."""
        modules = {self.settings[key]["_target_"].rpartition(".")[0] for key in ("task", "trainer", "args")}
        decides = as_json([self.settings, code(MODULE, *sorted(modules))])
        landscape, algorithm, rate, _, seed = self.names
        return f"{landscape}-{algorithm}-{rate:g}-{seed}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}.json"

    def run(self, folder: str) -> None:
        """Train, and write the result to `folder` unless it is there: wholly or not at all."""
        path = Path(folder) / self.file
        if not read_mark(path):
            write(path, json.dumps({"names": self.names, **train(self.settings)}))


@functools.cache
def code(*modules: str) -> dict:
    """Hashes of modules and of what they import from this project, and versions of the packages that they run on."""
    return {**source(*modules), **{name: number for name, number in versions().items() if name != "git_commit"}}


def train(settings: dict) -> dict:
    """The learning curve: true mean reward of every sampled batch, with the tokens of a batch and the last metrics."""
    import torch
    import transformers
    from datasets import Dataset
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from evaluation.comparison.landscapes.policy import PROMPT_LENGTH
    from evaluation.comparison.landscapes.policy import build as build_policy
    from rlhf_trl_ext.configuration.checks import build

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    task, begin = settings["task"], time.perf_counter()
    shape = {key: task[key] for key in ("questions", "actions", "length")}
    with tempfile.TemporaryDirectory() as scratch:
        policy, tokenizer = build_policy(Path(scratch), seed=settings["args"]["seed"], **shape, **settings["policy"])
        reward = instantiate(task, seed=settings["args"]["seed"])
        args = build(OmegaConf.create({**settings["args"], **QUIET}), "args", output_dir=scratch)
        steps = args.num_iterations * args.steps_per_generation // args.gradient_accumulation_steps
        args.max_steps = settings["iterations"] * steps
        rows = max(task["questions"], args.generation_batch_size // args.num_generations)
        dataset = Dataset.from_list(
            [{"prompt": " ".join([str(row % task["questions"])] * PROMPT_LENGTH)} for row in range(rows)]
        )
        arguments = {"model": policy, "reward_funcs": reward, "args": args, "train_dataset": dataset}
        trainer = instantiate(settings["trainer"], _convert_="all")(processing_class=tokenizer, **arguments)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    last = {key: value for key, value in trainer.state.log_history[-1].items() if isinstance(value, int | float)}
    del trainer
    gc.collect()  # trainers hold themselves in cycles, and a process trains many
    return {
        "rewards": reward.means,
        "steps_per_iteration": steps,
        "tokens_per_iteration": args.generation_batch_size * task["length"],
        "seconds": round(time.perf_counter() - begin, 2),
        "metrics": last,
    }


def main(work: str, folder: str) -> None:
    for number, (names, settings) in enumerate(json.loads(Path(work, "cells.json").read_text())):
        try:
            Path(work, f"taken-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        Cell(tuple(names), settings).run(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
