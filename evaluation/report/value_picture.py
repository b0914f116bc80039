"""Where a critic thinks completions were won or lost: value and advantage per token as coloured text, in one HTML file.

`python -m evaluation.report.value_picture --policy outputs/demo/grpo_vi --samples <samples.jsonl>` reads a finished
run of GRPO-VI (or of PPO: any folder with a `critic` in it) and samples of any policy.
"""

import argparse
import html
from pathlib import Path

import torch
from torch import Tensor

from rlhf_trl_ext.data.samples import read_samples

STYLE = """body{font:15px/1.7 system-ui,sans-serif;max-width:60em;margin:2em auto;color:#222}pre{white-space:pre-wrap;
font:inherit;margin:.2em 0}.prompt{color:#666}section{border-top:1px solid #ccc;padding:.6em 0}span.t{border-radius:3px}
small{color:#666}"""
BLUE, RED = (45, 110, 190), (205, 65, 45)


def coloured(tokens: list[str], numbers: list[float], scale: float, center: float = 0.0) -> str:
    """Tokens on blue where the number is above `center`, on red where below; full colour at `scale` from it."""
    pieces = []
    for token, number in zip(tokens, numbers, strict=True):
        strength = min(abs(number - center) / max(scale, 1e-9), 1.0)
        red, green, blue = BLUE if number > center else RED
        style = f"background:rgba({red},{green},{blue},{0.75 * strength:.2f})"
        pieces.append(f'<span class="t" style="{style}" title="{number:+.3f}">{html.escape(token)}</span>')
    return "".join(pieces)


def page(rows: list[dict], lam: float) -> str:
    """rows: prompt, tokens, values, advantages, reward (or None) of each sample. Returns a whole HTML document."""
    everything = torch.tensor([number for row in rows for number in row["values"]])
    center, spread = everything.mean().item(), 2 * everything.std().item()
    scale = torch.tensor([abs(number) for row in rows for number in row["advantages"]]).quantile(0.95).item()
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Values and advantages</title><style>{STYLE}</style>",
        "<h1>Values and advantages</h1><p>Blue is above, red below; the number is shown under the pointer. "
        f"Value: of the text before a token, against the mean {center:.2f}, full colour at {spread:.2f} from it. "
        f"Advantage: of the token, lambda {lam:g}, full colour at {scale:.2f}.</p>",
    ]
    for row in rows:
        reward = "" if row["reward"] is None else f"reward {row['reward']:.3f}, "
        parts += [
            f'<section><pre class="prompt">{html.escape(row["prompt"])}</pre>',
            f"<small>value, {reward}first {row['values'][0]:.3f}, last {row['values'][-1]:.3f}</small>",
            f"<pre>{coloured(row['tokens'], row['values'], spread, center)}</pre>",
            f"<small>advantage</small><pre>{coloured(row['tokens'], row['advantages'], scale)}</pre></section>",
        ]
    return "\n".join(parts)


@torch.no_grad()
def measured(valuer, tokenizer, sample: dict, lam: float) -> dict:
    """A sample with tokens, values and advantages; without a reward, the last value is used instead."""
    from rlhf_trl_ext.functional.value_iteration import value_advantages

    prompt = tokenizer.apply_chat_template(sample["prompt"], add_generation_prompt=True, return_dict=False)
    completion = tokenizer(sample["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    batch = {"prompt_ids": torch.tensor([prompt]), "completion_ids": torch.tensor([completion])}
    batch |= {"prompt_mask": torch.ones(1, len(prompt)).long(), "token_mask": torch.ones(1, len(completion))}
    batch["completion_mask"] = batch["token_mask"].long()
    values = valuer({**batch, "states": valuer.states(batch)})  # (1, T)
    reward = sample.get("reward")
    paid = values[:, -1] if reward is None else torch.tensor([float(reward)])
    advantages: Tensor = value_advantages(paid, values, batch["token_mask"], lam)
    tokens = [tokenizer.decode([token]) for token in completion]
    summary = {"prompt": sample["prompt"][-1]["content"], "tokens": tokens, "reward": reward}
    return {**summary, "values": values[0].tolist(), "advantages": advantages[0].tolist()}


def load(policy: Path):
    """Values of prefixes by the critic saved with a policy, and its tokenizer. Raises ValueError without a critic."""
    from rlhf_trl_ext.models.pretrained import load_classifier, load_policy, load_tokenizer
    from rlhf_trl_ext.trainers.parts.critic import NAME, load_critic_weights
    from rlhf_trl_ext.trainers.parts.prefix_values import GAINS, HEAD, PolicyHead, PrefixValues

    folders = [folder for folder in (policy / NAME, policy / "adapter" / NAME / "adapter") if folder.is_dir()]
    if not folders:
        raise ValueError(f"--policy={policy} has no critic: give the folder of a finished run with one.")
    folder, language_model = folders[0], None
    if (folder / HEAD).exists():
        language_model = load_policy(str(policy)).eval()
        critic = PolicyHead(language_model.config.get_text_config().hidden_size)
        load_critic_weights(critic, folder)
    else:
        critic = load_classifier(str(folder)).eval()
    valuer = PrefixValues(critic, language_model)
    if (folder / GAINS).exists():  # PPO's critic has none
        valuer.load_gains(folder)
    return valuer, load_tokenizer(str(policy))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of a finished run with a critic")
    parser.add_argument("--samples", type=Path, required=True, help="samples.jsonl of launchers.generate")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(8)), help="lines of samples, from 0")
    parser.add_argument("--lam", type=float, default=0.8, help="lambda of the advantages")
    parser.add_argument("--output", type=Path, help="by default values.html beside the samples")
    options = parser.parse_args()
    samples = read_samples(options.samples)
    if max(options.rows) >= len(samples):
        parser.error(f"--rows={options.rows}: {options.samples} has {len(samples)} rows, 0 to {len(samples) - 1}.")
    valuer, tokenizer = load(options.policy)
    rows = [measured(valuer, tokenizer, samples[row], options.lam) for row in options.rows]
    output = options.output or options.samples.with_name("values.html")
    output.write_text(page(rows, options.lam))
    print(f"{len(rows)} samples in {output}")


if __name__ == "__main__":
    main()
