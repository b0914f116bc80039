import json
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evaluation.report import value_picture
from rlhf_trl_ext.trainers.parts.critic import token_values
from rlhf_trl_ext.trainers.parts.prefix_values import PrefixValues


@pytest.fixture
def run(tiny, tmp_path):
    """Folder of a finished run: a policy with a critic whose head and gains are random; and two samples."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "run"
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    torch.manual_seed(0)
    critic = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    critic.save_pretrained(folder / "critic")
    valuer = PrefixValues(critic, None)
    valuer.save_gains(folder)
    file = folder / "critic" / "gains.safetensors"
    save_file({name: torch.randn_like(value) for name, value in load_file(file).items()}, file)
    rows = [
        {
            "prompt": [{"role": "user", "content": "Is my <lamp> here?"}],
            "completion": "Your lamp & desk.",
            "reward": 1.5,
        },
        {"prompt": [{"role": "user", "content": "Hello"}], "completion": "No.", "reward": None},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, critic, rows


def test_picture_shows_every_token_with_its_value_and_advantage(run, tmp_path, monkeypatch, capsys):
    folder, critic, rows = run
    monkeypatch.setattr(sys, "argv", ["", "--policy", str(folder), "--samples", str(tmp_path / "samples.jsonl")])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--rows", "0", "1", "--lam", "1"])
    value_picture.main()
    shown = (tmp_path / "values.html").read_text()
    assert "&lt;lamp&gt;" in shown and "&amp;" in shown and "<lamp>" not in shown and "http" not in shown
    valuer, tokenizer = value_picture.load(folder)
    row = value_picture.measured(valuer, tokenizer, rows[0], 1.0)
    assert "".join(row["tokens"]) == "Your lamp & desk.<|end|>"
    # lambda = 1: what the value of the prefix still lacks of the reward
    assert row["advantages"] == pytest.approx([1.5 - value for value in row["values"]], abs=1e-5)
    assert shown.count(f'title="{row["values"][2]:+.3f}"') >= 1 and shown.count('class="t"') == 2 * len(
        row["tokens"] + value_picture.measured(valuer, tokenizer, rows[1], 1.0)["tokens"]
    )
    # The first value is the critic's own, later ones have the gains of the tokens before them as well.
    prompt = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([prompt + tokenizer(rows[0]["completion"])["input_ids"] + [tokenizer.eos_token_id]])
    with torch.no_grad():
        own = token_values(critic.eval(), ids, torch.ones_like(ids), len(row["tokens"]))[0]
    assert row["values"][0] == pytest.approx(own[0].item(), abs=1e-5)
    assert abs(row["values"][-1] - own[-1].item()) > 1e-3


def test_a_folder_without_a_critic_is_refused(tiny):
    with pytest.raises(ValueError, match="has no critic: give the folder of a finished run with one"):
        value_picture.load(tiny)
