"""An export that was not run is not an export: it is compared with transformers on the same prompts."""

import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from rlhf_trl_ext.serving.export import INPUTS, is_reward_model, load, read_record

TIE = 1e-3  # nats between two tokens that rounding may exchange
REWARD = 1e-3  # difference of rewards, in units of their spread, that rounding may make
GRAPHS = {"onnx-model": "model.onnx", "tensorrt": "model.onnx", "torch": "model.pt2", "torchscript": "model.ts"}


class Graph:
    """A forward pass of two tensors, run without a cache. logits: `(T, V)` of a sequence, `(1,)` of a reward model."""

    def __init__(self, folder: Path, format: str):
        path = str(folder / GRAPHS[format])
        if format == "torch":
            program = torch.export.load(path).module()
            self._run = lambda *tensors: program(**dict(zip(INPUTS, tensors, strict=True)))
        elif format == "torchscript":
            self._run = torch.jit.load(path)
        else:
            import onnxruntime

            providers = ["TensorrtExecutionProvider"] if format == "tensorrt" else ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(path, providers=providers)
            self._run = lambda *tensors: session.run(
                None, {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors, strict=True)}
            )[0]

    @torch.no_grad()
    def logits(self, ids: list[int]) -> np.ndarray:
        tensor = torch.tensor([ids])
        out = self._run(tensor, torch.ones_like(tensor))
        out = out.logits if hasattr(out, "logits") else out[0] if isinstance(out, tuple | list) else out
        return np.asarray(out[0], dtype=np.float32)

    def greedy(self, ids: list[int], count: int, ends: set[int]) -> list[int]:
        sampled: list[int] = []
        while len(sampled) < count and not (sampled and sampled[-1] in ends):
            sampled.append(int(self.logits(ids + sampled)[-1].argmax()))
        return sampled


class GenAI:
    """onnxruntime-genai's model with its own cache."""

    def __init__(self, folder: Path):
        import onnxruntime_genai

        self._genai = onnxruntime_genai
        self.model = onnxruntime_genai.Model(str(folder))

    def generator(self, length: int, **options):
        parameters = self._genai.GeneratorParams(self.model)
        parameters.set_search_options(max_length=length, **(options or {"do_sample": False}))
        return self._genai.Generator(self.model, parameters)

    def logits(self, ids: list[int]) -> np.ndarray:
        generator, rows = self.generator(len(ids) + 1), []
        for token in ids:
            generator.append_tokens(np.array([[token]], dtype=np.int32))
            rows.append(np.asarray(generator.get_logits(), dtype=np.float32)[0, -1])
        return np.stack(rows)

    def greedy(self, ids: list[int], count: int, ends: set[int]) -> list[int]:
        generator, sampled = self.generator(len(ids) + count), []
        generator.append_tokens(np.array([ids], dtype=np.int32))
        while not generator.is_done() and len(sampled) < count and not (sampled and sampled[-1] in ends):
            generator.generate_next_token()
            sampled.append(int(generator.get_next_tokens()[0]))
        return sampled


class Original:
    """The model in transformers, with the same interface."""

    def __init__(self, policy: str):
        self.model = load(policy)

    @torch.no_grad()
    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model(torch.tensor([ids])).logits[0].float().numpy()

    @torch.no_grad()
    def greedy(self, ids: list[int], count: int, ends: set[int]) -> list[int]:
        tensor = torch.tensor([ids])
        options = {"do_sample": False, "eos_token_id": sorted(ends), "pad_token_id": min(ends)}
        out = self.model.generate(tensor, attention_mask=torch.ones_like(tensor), max_new_tokens=count, **options)
        return out[0, len(ids) :].tolist()


def runner(folder: Path, format: str):
    return GenAI(folder) if format == "onnx" else Graph(folder, format)


def verify(policy: str, folder: Path, format: str, precision: str, tokenizer, rows: list[dict], count: int) -> dict:
    """What an export computes against transformers; the record that goes to export.json.

    policy: folder of the model that was exported. rows: prompts, or chats with the reply (`chosen`) for a reward model.
    count: tokens of a greedy reply at most. `same`: whether it counts as equal.
    Raises ValueError where the runtime refuses the export, and where it was verified and has changed since.
    """
    if (folder / "export.json").exists() and (changed := _changed(folder)):
        raise ValueError(f"{folder}: {', '.join(changed)} changed after the build; build it again with overwrite=true.")
    try:
        exported = runner(folder, format)
        rewards = is_reward_model(policy)
        compare = _rewards if rewards else _tokens
        comparison = compare(Original(policy), exported, tokenizer, rows, count)
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"format={format}: its runtime refuses the export ({_short(error)}).") from error
    except Exception as error:  # onnxruntime's own classes
        if "onnxruntime" not in type(error).__module__:
            raise
        raise ValueError(f"format={format}: its runtime refuses the export ({_short(error)}).") from error
    record = {"policy": str(policy), "format": format, "precision": precision}
    sizes = {"megabytes": size(folder), "original_megabytes": size(Path(policy))}
    return record | {"kind": "reward" if rewards else "policy"} | comparison | sizes | {"files": digests(folder)}


def _changed(folder: Path) -> list[str]:
    before, now = read_record(folder)["files"], digests(folder)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _tokens(original: Original, exported, tokenizer, rows: list[dict], count: int) -> dict:
    ends = original.model.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        for row in rows
    ]
    (expected, slow), (given, fast) = (_timed(each, prompts, count, ends) for each in (original, exported))
    tokens, equal, whole = 0, 0, 0
    for ids, right, own in zip(prompts, expected, given, strict=True):
        common = _common(original, ids, right, own)
        tokens, equal, whole = tokens + len(right), equal + common, whole + (common == len(right) == len(own))
    losses = [_losses(each, prompts, expected) for each in (original, exported)]
    return {
        "prompts": len(prompts),
        "equal_prompts": whole,
        "tokens": tokens,
        "equal_tokens": equal,
        "perplexity": [math.exp(loss) for loss in losses],
        "tokens_per_second": [tokens / slow, sum(map(len, given)) / fast],
        "same": whole == len(prompts) and abs(losses[0] - losses[1]) < TIE,
    }


def _timed(model, prompts: list[list[int]], count: int, ends: set[int]) -> tuple[list[list[int]], float]:
    model.greedy(prompts[0], 2, ends)  # what is done once does not count
    begin = time.perf_counter()
    return [model.greedy(ids, count, ends) for ids in prompts], time.perf_counter() - begin


def _common(original: Original, ids: list[int], right: list[int], own: list[int]) -> int:
    """Tokens up to the first difference that is no tie; after a tie the texts go apart, which is no fault."""
    for place, (expected, given) in enumerate(zip(right, own, strict=False)):
        if expected != given:
            logits = original.logits(ids + right[:place])[-1]
            return len(right) if logits[expected] - logits[given] < TIE else place
    return min(len(right), len(own))


def _losses(model, prompts: list[list[int]], replies: list[list[int]]) -> float:
    """Mean negative log-probability of the replies' tokens, nats."""
    total, count = 0.0, 0
    for ids, reply in zip(prompts[:16], replies, strict=False):
        logits = torch.from_numpy(model.logits(ids + reply))[len(ids) - 1 : -1]
        total -= torch.log_softmax(logits, -1).gather(1, torch.tensor(reply)[:, None]).sum().item()
        count += len(reply)
    return total / max(count, 1)


def _rewards(original: Original, exported, tokenizer, rows: list[dict], _count: int) -> dict:
    chats = [
        tokenizer.apply_chat_template(row["prompt"] + row["chosen"], return_dict=True)["input_ids"] for row in rows
    ]
    scores = []
    for model in (original, exported):
        begin = time.perf_counter()
        own = np.array([float(model.logits(ids).reshape(-1)[0]) for ids in chats])
        scores.append((own, sum(map(len, chats)) / (time.perf_counter() - begin)))
    (expected, slow), (given, fast) = scores
    difference = np.abs(given - expected).max()
    return {
        "prompts": len(chats),
        "reward_difference": float(difference),
        "reward_spread": float(expected.std()),
        "tokens_per_second": [slow, fast],
        "same": bool(difference <= REWARD * max(expected.std(), 1e-6)),
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an export."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "export.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def size(folder: Path) -> float:
    """Megabytes of weights and graph."""
    kinds = (".safetensors", ".bin", ".onnx", ".data", ".pt2", ".ts")
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.suffix in kinds and path.is_file()) / 1e6


def table(record: dict) -> Table:
    """The record for the terminal, transformers beside the export."""
    drawn = Table(title=f"{record['policy']} as {record['format']}, {record['precision']}", title_justify="left")
    for column in ("", "transformers", record["format"]):
        drawn.add_column(column, justify="left" if not column else "right")
    drawn.add_row("megabytes", f"{record['original_megabytes']:.2f}", f"{record['megabytes']:.2f}")
    drawn.add_row("tokens per second", *(f"{value:,.0f}" for value in record["tokens_per_second"]))
    if "perplexity" in record:
        drawn.add_row("perplexity of its greedy replies", *(f"{value:.4f}" for value in record["perplexity"]))
    return drawn


def in_words(record: dict) -> str:
    if record["kind"] == "reward":
        return (
            f"rewards differ by at most {record['reward_difference']:.2g} on {record['prompts']} chats, where they "
            f"spread by {record['reward_spread']:.2g}."
        )
    share = record["equal_tokens"] / max(record["tokens"], 1)
    return (
        f"greedy replies equal on {record['equal_prompts']} of {record['prompts']} prompts; {share:.1%} of the tokens "
        "come before the first difference."
    )
