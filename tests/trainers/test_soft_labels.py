"""Soft labels in DPO and reward models, through `trainer.train()`."""

import math

import pytest
import torch
import torch.nn.functional as F
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_trl_ext.trainers.parts.soft_labels import soft_term
from rlhf_trl_ext.trainers.soft_dpo import SoftDPOTrainer
from rlhf_trl_ext.trainers.soft_reward import SoftRewardTrainer

BASE = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "logging_steps": 1}
BASE |= {"save_strategy": "no", "disable_tqdm": True, "per_device_train_batch_size": 4, "max_steps": 4}
DPO = (trl.DPOTrainer, SoftDPOTrainer, trl.DPOConfig)
REWARD = (trl.RewardTrainer, SoftRewardTrainer, trl.RewardConfig)


def turns(content, role="assistant"):
    return [{"role": role, "content": content}]


def rows(p=None, count=16, **columns):
    """Pairs of different lengths; p: of every row, None for no column."""
    made = [
        {
            "prompt": turns(f"lamp {'desk ' * (i % 3)}", "user"),
            "chosen": turns("Hello, the lamp is here." if i % 2 else "The lamp."),
            "rejected": turns("No." if i % 3 else "No lamp there, sorry."),
            **({} if p is None else {"p_chosen": p}),
            **{key: value for key, value in columns.items()},
        }
        for i in range(count)
    ]
    return Dataset.from_list(made)


def train(trainer, config, policy, folder, data, **settings):
    args = config(output_dir=str(folder), **{**BASE, "learning_rate": 1e-2, **settings})
    tokenizer = AutoTokenizer.from_pretrained(policy)
    made = trainer(model=policy, args=args, train_dataset=data, processing_class=tokenizer)
    made.train()
    return made


def logged(trainer):
    timed = ("runtime", "per_second", "flos")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in trainer.state.log_history]


def test_the_soft_term_makes_the_soft_loss():
    # -p ls(x) - (1-p) ls(-x) with p = .7, x = 1.3: ls(1.3) = -.2410084, ls(-1.3) = -1.5410084;
    # .7 * .2410084 + .3 * 1.5410084 = .6310084
    x, p = torch.linspace(-6, 6, 25, dtype=torch.float64).requires_grad_(), 0.7
    soft = -p * F.logsigmoid(x) - (1 - p) * F.logsigmoid(-x)
    ours = (-F.logsigmoid(x)).mean() + soft_term(torch.full_like(x, p), x)
    assert torch.allclose(ours, soft.mean(), atol=1e-15, rtol=0)
    (gradient,) = torch.autograd.grad(ours, x)
    assert torch.allclose(gradient * 25, torch.sigmoid(x.detach()) - p, atol=1e-15, rtol=0)
    point = torch.tensor([1.3])
    value = -F.logsigmoid(point) + soft_term(torch.tensor([0.7]), point)
    assert value.item() == pytest.approx(0.6310084, abs=1e-6)


def test_drawn_labels_have_the_soft_loss_in_the_mean():
    # The alternative without a trainer: each row turned with probability 1 - p. Standard error of the mean of
    # n = 40,000 draws: |ls(x) - ls(-x)| sqrt(p (1 - p) / n) = |x| sqrt(.21 / 40000) = .0023 |x|.
    p, x = 0.7, torch.tensor(1.3)
    sign = torch.where(torch.rand(40_000, generator=torch.Generator().manual_seed(0)) < p, 1.0, -1.0)
    soft = -F.logsigmoid(x) + soft_term(torch.tensor([p]), x)
    assert abs((-F.logsigmoid(sign * x)).mean() - soft) < 4 * 0.0023 * 1.3


@pytest.mark.parametrize("plain, soft, config", [DPO, REWARD], ids=["dpo", "reward"])
def test_certain_labels_train_exactly_as_trl_does(plain, soft, config, policy, reward, tmp_path):
    policy = policy if config is trl.DPOConfig else reward
    ours = train(soft, config, policy, tmp_path / "soft", rows(1.0))
    theirs = train(plain, config, policy, tmp_path / "plain", rows(1.0))
    assert logged(ours) == logged(theirs)
    for (name, a), (_, b) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    # the control: uncertain labels change both
    other = train(soft, config, policy, tmp_path / "other", rows(0.7))
    assert logged(other)[1]["loss"] != logged(theirs)[1]["loss"]


def test_half_certain_labels_teach_nothing_at_first(policy, tmp_path):
    # DPO starts at d = 0, where the gradient is sigmoid(0) - 1/2 = 0, and log 2 is the least loss there is.
    before = AutoModelForCausalLM.from_pretrained(policy)
    trained = train(SoftDPOTrainer, trl.DPOConfig, policy, tmp_path, rows(0.5), optim="sgd", learning_rate=0.1)
    assert logged(trained)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    for (name, a), b in zip(before.named_parameters(), trained.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_the_optimum_of_soft_labels_is_their_logit(policy, tmp_path):
    """One pair, learnt until nothing moves: b d of DPO and r_c - r_r of the reward model are log(p / (1 - p))."""
    p = 0.8
    data = rows(p, count=2).select([1])
    settings = {"max_steps": 60, "learning_rate": 3e-3, "per_device_train_batch_size": 1, "lr_scheduler_type": "linear"}
    for trainer, config, key in ((SoftDPOTrainer, trl.DPOConfig, "rewards/margins"), (*REWARD[1:], "margin")):
        trained = train(trainer, config, policy, tmp_path / key, data, **settings)
        last = [row[key] for row in logged(trained) if key in row][-1]
        assert last == pytest.approx(math.log(p / (1 - p)), abs=0.02)


@pytest.mark.slow
def test_soft_dpo_with_lora_and_with_precomputed_reference(policy, tmp_path):
    from peft import LoraConfig

    tokenizer = AutoTokenizer.from_pretrained(policy)
    losses = []
    for name, extra, settings in (
        ("plain", {}, {}),
        ("precomputed", {}, {"precompute_ref_log_probs": True}),
        ("lora", {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"])}, {}),
    ):
        args = trl.DPOConfig(output_dir=str(tmp_path / name), **{**BASE, "learning_rate": 1e-2, **settings})
        made = SoftDPOTrainer(model=policy, args=args, train_dataset=rows(0.7), processing_class=tokenizer, **extra)
        made.train()
        losses.append([row["loss"] for row in logged(made) if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[2][0] == pytest.approx(math.log(2), abs=1e-4) and losses[2][-1] < losses[2][0]


def test_held_out_pairs_may_be_certain_and_margins_are_trls(policy, tmp_path):
    args = trl.RewardConfig(output_dir=str(tmp_path), **{**BASE, "learning_rate": 0.0})
    tokenizer = AutoTokenizer.from_pretrained(policy)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    values = {}
    for name, margin in (("none", None), ("one", 1.0)):
        extra = {} if margin is None else {"margin": margin}
        data, held_out = rows(0.8, **extra), rows(None, **extra)
        made = SoftRewardTrainer(
            model=model, args=args, train_dataset=data, eval_dataset=held_out, processing_class=tokenizer
        )
        values[name] = made.evaluate()
    # the same model: a margin of 1 lowers every x by 1, which raises -logsigmoid(x) by between 0 and 1
    assert 0 < values["one"]["eval_loss"] - values["none"]["eval_loss"] < 1
    assert values["one"]["eval_accuracy"] == values["none"]["eval_accuracy"]


@pytest.mark.parametrize(
    "data, settings, told",
    [
        (None, {}, "SoftDPOTrainer needs a column p_chosen, and the data have prompt, chosen, rejected"),
        (1.5, {}, "p_chosen is a probability"),
        (0.7, {"loss_type": ["ipo"]}, r"args.loss_type=\['ipo'\]: soft labels are defined for loss_type=\['sigmoid'\]"),
    ],
)
def test_what_has_no_soft_loss_is_refused(data, settings, told, policy, tmp_path):
    with pytest.raises(ValueError, match=told):
        train(SoftDPOTrainer, trl.DPOConfig, policy, tmp_path, rows(data), **settings)
