"""Speed and memory of PPO against TRL 1.12's: `python -m evaluation.proofs.speed.ppo` after `make ppo-parity`.

Equal model, reward model, batch, lengths, epochs and optimizer; every run is a process of its own, and the two take
turns. Reported: sampled tokens per second of training and per second of processor time (on a shared CPU the fairer of
the two), and peak resident memory above that of the process with its models loaded. A run's first update is left out.

Both trainers do the same work in the layers of the four models. What differs is the LM head (`--vocabulary`): TRL 1.12
projects prompts as well. The default makes it a third of the layers, as it is in models of 0.5 to 1.5 B parameters.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SHARED = {"learning_rate": 1e-5, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False}


@dataclass(frozen=True)
class Size:
    """Completions of a batch, tokens of each, epochs over it; cuda: in bfloat16 there. compiled: our sampling."""

    rows: int = 32
    tokens: int = 32
    epochs: int = 4
    cuda: bool = False
    compiled: str = "off"

    def arguments(self) -> dict:
        """Of both trainers' configurations."""
        place = {"use_cpu": not self.cuda, "bf16": self.cuda, "per_device_train_batch_size": self.rows}
        return {**SHARED, "disable_tqdm": True, **place}

    def loading(self) -> dict:
        """Of `from_pretrained`."""
        return {"dtype": "bfloat16" if self.cuda else "float32"}


def build(folder: Path, hidden_size: int, vocabulary: int) -> None:
    """A tiny Llama with its tokenizer, and a reward model with the same backbone.

    vocabulary: rows of the embedding; the tokenizer needs 540. The more there are, the more the logits cost that TRL
    1.12 keeps and TRL 1.16 does not.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from rlhf_trl_ext.models.tiny import build_tiny

    build_tiny(folder / "policy", hidden_size=hidden_size, layers=4, feed_forward_size=3 * hidden_size)
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    policy.resize_token_embeddings(vocabulary, mean_resizing=False)
    policy.save_pretrained(folder / "policy")
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    reward.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(folder / "policy").save_pretrained(folder / "reward")


def chats(rows: int) -> list:
    """Prompts of four batches of `rows`, of different lengths."""
    return [[{"role": "user", "content": f"lamp {i} " + "desk " * (i % 4)}] for i in range(4 * rows)]


class Clock:
    """Seconds spent in functions that it wraps; what one of them spends inside another counts once.

    wait: called before a time is taken, for devices that run behind.
    """

    def __init__(self, wait: Callable = lambda: None):
        self.seconds, self.inside, self.wait = {}, False, wait

    def wrap(self, owner, name: str, kind: str) -> None:
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            if self.inside:
                return function(*args, **kwargs)
            self.wait()
            self.inside, begin = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.wait()
                self.inside = False
                self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - begin

        setattr(owner, name, timed)


def stamps(steps: int, clock: Clock):
    """A callback that notes the time after every `steps` steps, and restarts the clock after the first ones."""
    from transformers import TrainerCallback

    class Stamps(TrainerCallback):
        def __init__(self):
            self.times, self.processor = [], []

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % steps == 0:
                clock.wait()
                self.times.append(time.perf_counter())
                self.processor.append(time.process_time())
                if len(self.times) == 1:
                    clock.seconds.clear()

    return Stamps()


def ours(folder: Path, updates: int, clock: Clock, size: Size):
    """This project's trainer, and its callback."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

    args = PPOConfig(
        output_dir=str(folder / "ours"),
        max_steps=updates * size.epochs,
        num_iterations=size.epochs,
        steps_per_generation=1,
        max_completion_length=size.tokens,
        critic_path=str(folder / "reward"),
        logging_steps=size.epochs,
        compiled_generation=size.compiled,
        model_init_kwargs=size.loading(),
        **size.arguments(),
    )
    noted = stamps(size.epochs, clock)
    trainer = PPOTrainer(
        str(folder / "policy"),
        str(folder / "reward"),
        args,
        train_dataset=Dataset.from_list([{"prompt": chat} for chat in chats(size.rows)]),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        callbacks=[noted],
    )
    clock.wrap(trainer, "_generate_single_turn", "generation")
    for name in ("_get_per_token_logps_and_entropies", "values", "_calculate_rewards"):
        clock.wrap(trainer, name, "forward")
    clock.wrap(trainer.accelerator, "backward", "backward")
    create = trainer.create_optimizer

    def created(*args):
        clock.wrap(create(*args), "step", "optimizer")
        return trainer.optimizer

    trainer.create_optimizer = created
    return trainer, noted


def trl112(folder: Path, updates: int, clock: Clock, size: Size):
    """TRL 1.12's trainer, and its callback."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    args = PPOConfig(
        output_dir=str(folder / "trl112"),
        total_episodes=updates * size.rows,
        local_rollout_forward_batch_size=size.rows,
        num_mini_batches=1,
        num_ppo_epochs=size.epochs,
        num_sample_generations=0,
        response_length=size.tokens,
        stop_token="eos",
        missing_eos_penalty=1.0,
        **size.arguments(),
    )
    noted = stamps(1, clock)
    rendered = [
        tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats(size.rows)
    ]
    loading = size.loading()

    def classifier(path):
        return AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, **loading)

    trainer = PPOTrainer(
        args,
        tokenizer,
        AutoModelForCausalLM.from_pretrained(folder / "policy", **loading),
        AutoModelForCausalLM.from_pretrained(folder / "policy", **loading),
        classifier(folder / "reward"),
        Dataset.from_dict({"input_ids": rendered}),
        classifier(folder / "reward"),
        eval_dataset=Dataset.from_dict({"input_ids": rendered[:2]}),
        callbacks=[noted],
    )
    return trainer, noted


def work(which: str, folder: Path, updates: int) -> None:
    """One run; prints its figures as one line of JSON."""
    clock, size = Clock(), Size()
    trainer, noted = {"ours": ours, "trl112": trl112}[which](folder, updates, clock, size)
    loaded = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    trainer.train()
    seconds = noted.times[-1] - noted.times[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    tokens = (updates - 1) * size.rows * size.tokens
    processor = noted.processor[-1] - noted.processor[0]
    figures = {"tokens_per_second": tokens / seconds, "tokens_per_processor_second": tokens / processor}
    figures |= {"peak_mb": peak, "above_mb": peak - loaded}
    shares = {f"share_{kind}": value / seconds for kind, value in clock.seconds.items()}
    print("RESULT " + json.dumps({**figures, **shares}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", default=".venv-trl112/bin/python", help="interpreter with trl==1.12.0")
    parser.add_argument("--updates", type=int, default=12, help="sampled batches per run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each trainer")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--work", nargs=2, metavar=("WHICH", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work[0], Path(options.work[1]), options.updates)
    from evaluation.proofs.speed.processes import measure  # not there where this file runs by TRL 1.12's Python

    results = {"ours": [], "trl112": []}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), options.hidden_size, options.vocabulary)
        for _ in range(options.rounds):
            for which, python in (("ours", sys.executable), ("trl112", options.reference)):
                target = ["-m", "evaluation.proofs.speed.ppo"] if which == "ours" else [__file__]
                command = [python, *target, "--updates", str(options.updates), "--work", which, folder]
                results[which].append(measure(command))
                print(which, json.dumps(results[which][-1]), flush=True)
    median = {which: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for which, rows in results.items()}
    for name in ("tokens_per_second", "tokens_per_processor_second", "peak_mb", "above_mb"):
        ours, theirs = median["ours"][name], median["trl112"][name]
        print(f"{name}: ours {ours:.0f}, TRL 1.12 {theirs:.0f}, ratio {ours / theirs:.2f}")
    shares = {k: v for k, v in median["ours"].items() if k.startswith("share_")}
    print(f"share of a step outside generation, forward, backward and optimizer: {1 - sum(shares.values()):.3f}")


if __name__ == "__main__":
    main()
