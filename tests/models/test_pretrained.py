"""Models by folder, hub id with a revision, or adapters on a base: everywhere the same names load the same weights."""

import hashlib
import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_trl_ext.configuration.paths import checkpoint_refusal, split_revision
from rlhf_trl_ext.models import pretrained
from rlhf_trl_ext.models.loading import ModelArguments
from rlhf_trl_ext.rewards.model import RewardModel, check_reward_model

IDS = torch.arange(6, 14)[None]


def adapters(base, folder, kind):
    """Random LoRA weights on the tiny model, saved; returns their model."""
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if kind == "CAUSAL_LM" else AutoModelForSequenceClassification
    extra = {} if kind == "CAUSAL_LM" else {"num_labels": 1}
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type=kind, init_lora_weights=False)
    model = get_peft_model(auto.from_pretrained(base, dtype=torch.float32, **extra), config).eval()
    model.save_pretrained(folder)
    return model


def logits(model):
    model.config.pad_token_id = 0
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def policy(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "adapter"
    return adapters(tiny, folder, "CAUSAL_LM"), folder


@pytest.fixture(scope="module")
def reward(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "adapter"
    return adapters(tiny, folder, "SEQ_CLS"), folder


def test_adapters_are_a_policy_with_their_base_s_tokenizer(policy, tiny):
    model, folder = policy
    arguments = ModelArguments(dtype="float32")
    torch.testing.assert_close(logits(arguments.policy(str(folder))), logits(model), rtol=0, atol=1e-5)
    assert (logits(model) - logits(AutoModelForCausalLM.from_pretrained(tiny))).abs().max() > 1e-3
    assert arguments.tokenizer(str(folder)).get_vocab() == pretrained.load_tokenizer(str(tiny)).get_vocab()


def test_adapters_are_merged_once_to_be_trained_on(policy, tmp_path, monkeypatch):
    model, folder = policy
    arguments = ModelArguments(model_name_or_path=str(folder))
    whole = arguments.checkpoint(tmp_path / "built")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(whole)), logits(model), rtol=0, atol=1e-5)
    arguments.tokenizer(whole)
    monkeypatch.delattr("rlhf_trl_ext.models.loading.merge_adapter")
    assert arguments.checkpoint(tmp_path / "built") == whole


def test_adapters_are_a_reward(reward, tiny):
    model, folder = reward
    loaded = RewardModel(str(folder), device="cpu")
    torch.testing.assert_close(logits(loaded.model), logits(model), rtol=0, atol=1e-5)
    assert loaded.model.config._name_or_path == str(tiny)  # where TRL looks for the tokenizer
    assert all(weight.requires_grad for weight in loaded.model.parameters())  # as a critic that starts from it needs


def test_a_base_beside_its_adapters_is_read_and_a_missing_one_told(policy, tiny, tmp_path):
    model, folder = policy
    moved = tmp_path / "adapter"
    shutil.copytree(folder, moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "../base"}))
    assert "its base ../base is not there; mend base_model_name_or_path" in checkpoint_refusal("policy", str(moved))
    with pytest.raises(ValueError, match="is not there"):
        pretrained.load_policy(str(moved))
    (tmp_path / "base").symlink_to(tiny)
    assert checkpoint_refusal("policy", str(moved)) is None
    torch.testing.assert_close(logits(pretrained.load_policy(str(moved)).eval()), logits(model), rtol=0, atol=1e-5)


def test_adapters_without_weights_are_refused_also_beside_the_arguments_of_a_training(policy, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((policy[1] / "adapter_config.json").read_bytes())
    (tmp_path / "training_args.bin").touch()
    assert "it holds no weights of its adapters" in checkpoint_refusal("policy", str(tmp_path))


def test_adapters_of_the_other_kind_are_refused(policy, reward):
    assert "adapters for CAUSAL_LM, and SEQ_CLS is needed" in checkpoint_refusal("reward.path", str(policy[1]), True)
    assert "adapters for SEQ_CLS, and CAUSAL_LM is needed" in checkpoint_refusal("policy", str(reward[1]))
    assert checkpoint_refusal("reward.path", str(reward[1]), True) is None
    with pytest.raises(ValueError, match="is a language model"):
        check_reward_model("reward.path", str(policy[1]))
    with pytest.raises(ValueError, match="adapters for SEQ_CLS"):
        pretrained.load_policy(str(reward[1]))


def test_a_revision_reaches_every_load(monkeypatch):
    calls = []
    for auto in ("AutoTokenizer", "AutoModelForCausalLM", "AutoModelForSequenceClassification"):
        loader = getattr(pretrained, auto)
        monkeypatch.setattr(
            loader, "from_pretrained", lambda name, **given: calls.append((name, given["revision"])) or 0
        )
    pretrained.load_tokenizer("org/name@v2")
    pretrained.load_policy("org/name@v2")
    pretrained.load_policy("org/name", "v2")
    pretrained.load_classifier("org/name@v2")
    assert calls == [("org/name", "v2")] * 4
    assert split_revision("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
    arguments = ModelArguments(model_name_or_path="org/name@v2", use_peft=True)
    assert arguments.checkpoint(None) == "org/name" and arguments.load_arguments()["revision"] == "v2"
    assert arguments.trainer_arguments()["peft_config"].revision == "v2"
    with pytest.raises(ValueError, match="two revisions; give one of them"):
        ModelArguments(model_name_or_path="org/name@v2", model_revision="v1")


def publish(folder, name, cache, revision="main"):
    """Lay a folder into the hub's local cache as a download of `name` does."""
    place = cache / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    (place / "refs").mkdir(parents=True)
    (place / "refs" / revision).write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


def test_adapters_of_the_hub_are_recognised_wherever_a_model_is_named(policy, reward, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    publish(policy[1], "org/policy", tmp_path)
    publish(reward[1], "org/reward", tmp_path, revision="v2")
    torch.testing.assert_close(logits(pretrained.load_policy("org/policy")), logits(policy[0]), rtol=0, atol=1e-5)
    merged = ModelArguments(model_name_or_path="org/policy").checkpoint(tmp_path / "built")
    whole = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(whole), logits(policy[0]), rtol=0, atol=1e-5)
    assert ModelArguments().tokenizer("org/policy").eos_token
    loaded = RewardModel("org/reward@v2", device="cpu")
    torch.testing.assert_close(logits(loaded.model), logits(reward[0]), rtol=0, atol=1e-5)
    assert checkpoint_refusal("policy", "org/policy") is None
    assert checkpoint_refusal("reward.path", "org/reward@v2", True) is None
    assert "adapters for CAUSAL_LM, and SEQ_CLS is needed" in checkpoint_refusal("reward.path", "org/policy", True)
    assert "not in the local cache" in checkpoint_refusal("policy", "org/absent")
    with pytest.raises(ValueError, match="is a language model"):
        check_reward_model("reward.path", "org/policy")


def test_a_folder_around_models_names_them(policy, tmp_path):
    (tmp_path / "run").mkdir()
    assert "give the folder of a saved model" in checkpoint_refusal("policy", str(tmp_path / "run"))
    (tmp_path / "run" / "adapter").symlink_to(policy[1])
    assert f"give one of its folders, {tmp_path}/run/adapter" in checkpoint_refusal("policy", str(tmp_path / "run"))
