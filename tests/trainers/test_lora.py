import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from rlhf_trl_ext.trainers.parts.shared_base import AdapterReward, classifier_on


def lora(task_type="CAUSAL_LM"):
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type=task_type)


@pytest.fixture(scope="module")
def reward_adapter(policy, tmp_path_factory):
    """A reward model as an adapter on the policy's base, with weights that matter."""
    folder = tmp_path_factory.mktemp("reward_adapter")
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    model = get_peft_model(model, lora("SEQ_CLS"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def make(ppo, reward, reward_adapter):
    """`make(shares, **settings)`: a LoRA trainer with bases of their own, or with one base for all four roles."""

    def one(shares, **settings):
        reward_funcs = AdapterReward(reward_adapter) if shares else reward
        given = {"critic_path": reward_adapter if shares else reward, "critic_shares_base": shares, **settings}
        return ppo(reward_funcs=reward_funcs, trainer_arguments={"peft_config": lora()}, **given)

    return one


@pytest.mark.parametrize("shares", [False, True], ids=["separate bases", "one base"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_of_policy_and_critic_learn_and_the_base_does_not(make, weights, shares, checkpointing):
    trainer = make(shares, gradient_checkpointing=checkpointing)
    before = weights(trainer.model)
    trainer.train()
    for name, value in weights(trainer.model).items():
        learns = "lora_" in name or "modules_to_save" in name
        assert learns != torch.equal(value, before[name]), name


def test_one_base_holds_every_weight_once(make, policy):
    separate, one = make(False), make(True)
    base = sum(p.numel() for p in AutoModelForSequenceClassification.from_pretrained(policy).model.parameters())

    def distinct(trainer):
        modules = [trainer.model, *(f.model if hasattr(f, "model") else f for f in trainer.reward_funcs)]
        tensors = {p.data_ptr(): p.numel() for m in modules for n, p in m.named_parameters() if "lora_" not in n}
        return sum(tensors.values())

    assert distinct(one) < base + 10 * 32  # and heads
    assert distinct(separate) > 3 * base  # policy, critic, reward model


def test_values_and_rewards_on_one_base_are_those_of_separate_models(make, reward_adapter, policy):
    trainer = make(True)
    apart = AutoPeftModelForSequenceClassification.from_pretrained(reward_adapter, num_labels=1)
    ids = torch.randint(10, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    batch = {"prompt_ids": ids[:, :5], "completion_ids": ids[:, 5:]}
    batch |= {"prompt_mask": torch.ones(3, 5).long(), "completion_mask": torch.ones(3, 4).long()}
    logits = apart.score(apart.get_base_model().model(ids).last_hidden_state[:, 4:-1])[..., 0]
    torch.testing.assert_close(trainer.values(batch), logits, rtol=0, atol=1e-6)
    chat = [[{"role": "user", "content": "lamp"}]], [[{"role": "assistant", "content": "desk lamp"}]]
    apart.config.pad_token_id = trainer.processing_class.pad_token_id
    text = trainer.processing_class.apply_chat_template(chat[0][0] + chat[1][0], return_tensors="pt", return_dict=True)
    expected = apart(**text).logits.item()
    assert trainer.reward_funcs[0](*chat)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shares", [False, True], ids=["separate bases", "one base"])
def test_resume_and_saved_adapters(make, weights, logged, tmp_path, shares):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    whole = make(shares, folder=tmp_path / "whole", **settings)
    whole.train()
    resumed = make(shares, folder=tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert logged(resumed, "train_loss") == logged(whole, "train_loss")
    trained = weights(whole.model)
    assert all(torch.equal(value, trained[name]) for name, value in weights(resumed.model).items())
    whole.save_model(str(tmp_path / "out"))
    policy = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert list(policy.peft_config) == ["default"]
    saved = {name: value for name, value in weights(policy).items() if "lora_" in name}
    assert saved and all(torch.equal(value, trained[name]) for name, value in saved.items())
    critic = AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "out" / "critic" / "adapter", num_labels=1
    )
    saved = {name: value for name, value in weights(critic).items() if "lora_" in name or "modules_to_save" in name}
    assert saved and all(torch.equal(value, trained[f"critic.{name}"]) for name, value in saved.items())


def test_reference_is_the_policy_with_its_adapter_off(make, logged):
    trainer = make(True, max_steps=5)  # two samplings: 4 steps each
    trainer.train()
    divergence = [row["objective/kl"] for row in logged(trainer) if "objective/kl" in row]
    assert abs(divergence[0]) < 1e-5 and abs(divergence[1]) > 1e-3


def test_quantised_bases_learn_by_their_adapters(ppo, policy, weights):
    pytest.importorskip("bitsandbytes", reason="pip install '.[quantization]'")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    trainer = ppo(trainer_arguments={"peft_config": lora(), "quantization_config": four_bits})
    for model in (trainer.model, trainer.critic):
        assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    before = weights(trainer.model)
    trainer.train()
    for name, value in weights(trainer.model).items():
        assert ("lora_" in name or "modules_to_save" in name) != torch.equal(value, before[name]), name


def test_refusals(ppo, make, reward, policy):
    with pytest.raises(ValueError, match=r"needs adapters: give model\.use_peft=true"):
        ppo(critic_shares_base=True, critic_path=None)
    with pytest.raises(ValueError, match="is not an adapter: an adapter on"):
        make(True, critic_path=reward)
    with pytest.raises(ValueError, match="needs adapters"):
        classifier_on(torch.nn.Linear(1, 1))
