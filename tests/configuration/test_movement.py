"""Every preset moves its weights: 60 steps of each model's architecture, scaled down, at the preset's own rates."""

import importlib

import pytest
import torch
from configuration.test_configs import names
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from rlhf_trl_ext.configuration.overrides import training_config
from rlhf_trl_ext.memory.architecture import find_config
from rlhf_trl_ext.stages.train import train

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256}
ON_CPU = ["++args.use_cpu=true", "++args.bf16=false", "++args.gradient_checkpointing=false", "shown_rows=0"]
FEW = ["++args.max_steps=60", "++args.per_device_train_batch_size=4", "++args.gradient_accumulation_steps=1"]
SMALL = [f"++dataset.{view}=240" for view in ("demonstrations", "preferences", "prompts")]
SAMPLED = ["++args.max_completion_length=8", "++args.num_generations=2", "reward=gold"]
# Algorithms that learn from labels of launchers.label, whose settings are those of dpo, reward and grpo.
LABELLED = {"soft_dpo": "dpo", "soft_reward": "reward", "rlaif": "grpo"}


class Moved(TrainerCallback):
    """The share of the trained weights that 60 steps changed, in `share`."""

    share = None

    def attach(self, trainer):
        self.before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}

    def on_train_end(self, args, state, control, model=None, **kwargs):
        after = dict(model.named_parameters())
        changed = sum(int((after[name] != value).sum()) for name, value in self.before.items())
        Moved.share = changed / sum(value.numel() for value in self.before.values())


def scaled_down(name, tiny, folder):
    """A model of the architecture of `name` with random weights, and the tiny model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = find_config(name, SIZES | {"vocab_size": len(tokenizer), **ids})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SHARES = {}  # by what decides them: many presets set no rates of their own


def share_moved(composed, tmp_path, base, *overrides):
    callback = "++callbacks.moved._target_=configuration.test_movement.Moved"
    algorithm = next(each for each in overrides if each.startswith("algorithm=")).partition("=")[2]
    root = composed("train", f"output_root={tmp_path}", *overrides, *ON_CPU, *FEW, callback)
    config = training_config(root, algorithm)
    deciding = [OmegaConf.to_container(config[key], resolve=True) for key in ("args", "model", "trainer")]
    deciding = str([base, *deciding]).replace(str(tmp_path), "")
    if deciding not in SHARES:
        assert train(config)["steps"] == 60
        # of the module that Hydra imported
        SHARES[deciding] = importlib.import_module("configuration.test_movement").Moved.share
    return SHARES[deciding]


@pytest.mark.parametrize("preset", names("model"))
def test_every_model(preset, composed, tiny, tmp_path):
    name = OmegaConf.to_container(composed("train", f"model={preset}").model)["model_name_or_path"]
    folder = tiny if name in (None, "???") else scaled_down(name, tiny, tmp_path / "base")
    own = ["algorithm=dpo", *SMALL, f"model={preset}", f"model.model_name_or_path={folder}"]
    share = share_moved(composed, tmp_path, name, *own)
    print(f"{preset}: {share:.1%}")
    assert share > 0.5


@pytest.mark.parametrize("algorithm", sorted(set(names("algorithm")) - LABELLED.keys()))
def test_every_algorithm(algorithm, composed, tiny, tmp_path):
    name = "Qwen/Qwen2.5-0.5B-Instruct"
    folder = scaled_down(name, tiny, tmp_path / "base")
    own = [f"algorithm={algorithm}", *SMALL, "model=0.5b", f"model.model_name_or_path={folder}"]
    online = composed("train", f"algorithm={algorithm}").view == "prompts"
    share = share_moved(composed, tmp_path, name, *own, *(SAMPLED if online else []))
    print(f"{algorithm}: {share:.1%}")
    assert share > 0.5


# Experiment -> a stage of it that needs no other one, and what stands in for data of the hub and labels.
EXPERIMENTS = {
    "smoke": ["algorithm=dpo"],
    "demo": ["algorithm=dpo", *SMALL],
    "overoptimisation": ["algorithm=grpo", *SAMPLED, *SMALL],
    "multi_objective": ["algorithm=grpo", *SAMPLED, *SMALL],
    "prototype": ["algorithm=dpo", "dataset=embedded", *SMALL],
    "full": ["algorithm=dpo", "dataset=embedded", *SMALL],
    "rlaif": ["algorithm=sft", "++dataset.rest.demonstrations=240"],
    "rlaif_dpo": ["algorithm=sft", "++dataset.rest.demonstrations=240"],
    "rlaif_hh": ["algorithm=sft", "dataset@dataset.rest=embedded", "++dataset.rest.demonstrations=240"],
}


# `continue` sets no rates: it chooses the data alone.
@pytest.mark.parametrize("experiment", sorted({*names("experiment")} - {"continue"}))
def test_every_experiment(experiment, composed, tiny, tmp_path):
    name = OmegaConf.to_container(composed("train", f"experiment={experiment}").model)["model_name_or_path"]
    folder = tiny if name in (None, "???") else scaled_down(name, tiny, tmp_path / "base")
    own = [f"experiment={experiment}", f"model.model_name_or_path={folder}", *EXPERIMENTS[experiment]]
    share = share_moved(composed, tmp_path, name, *own)
    print(f"{experiment}: {share:.1%}")
    assert share > 0.5
