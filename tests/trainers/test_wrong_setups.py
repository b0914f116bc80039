import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification


def test_a_reward_model_with_several_labels(ppo, classifier, policy, tmp_path):
    three = classifier(policy, tmp_path / "three", num_labels=3)
    with pytest.raises(ValueError, match="has num_labels=3: a reward model with num_labels=1 is needed"):
        ppo(reward_funcs=three)
    with pytest.raises(ValueError, match=r"args.critic_path=.* has num_labels=3"):
        ppo(critic_path=three)


def test_a_critic_checkpoint_of_another_width(ppo, policy, tmp_path):
    trainer = ppo(tmp_path / "run", save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    tokenizer = AutoTokenizer.from_pretrained(policy)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    narrow = LlamaForSequenceClassification(LlamaConfig(**shape, **ids, num_labels=1))
    narrow.save_pretrained(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    other = ppo(tmp_path / "other", critic_path=str(tmp_path / "narrow"), max_steps=4)  # a critic may be narrower
    with pytest.raises(ValueError, match="critic with hidden_size=32 and this run has 16"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_a_checkpoint_without_a_critic(ppo, policy, tmp_path):
    with pytest.raises(ValueError, match="saved without a critic"):
        ppo(tmp_path / "run").train(resume_from_checkpoint=policy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coef": -0.1}, "kl_coef=-0.1: at least 0 is needed"),
        ({"beta": 0.2}, "beta=0.2: PPO's KL coefficient is kl_coef"),
        ({"value_warmup_steps": 1, "weight_decay": 0.1}, "weight_decay=0.1: give 0"),
        ({"score_scale": "batch"}, "score_scale=batch"),
        ({"kl_target": -1.0}, "kl_target=-1.0"),
        ({"kl_estimator": "k2"}, "kl_estimator=k2: allowed are k1, k3"),
        ({"score_placement": "first"}, "score_placement=first: allowed are last, trl_phantom"),
    ],
)
def test_wrong_arguments(ppo, settings, message):
    with pytest.raises(ValueError, match=message):
        ppo(**settings)


def test_a_reward_function_that_returns_too_few_values_or_raises(ppo):
    def too_few(completions, **kwargs):
        return [1.0]

    def broken(completions, **kwargs):
        raise KeyError("answer")

    with pytest.raises(ValueError, match="'too_few' returned 1 rewards, but 8 were expected"):
        ppo(reward_funcs=too_few).train()
    with pytest.raises(KeyError) as caught:
        ppo(reward_funcs=broken).train()
    assert "reward_funcs=['broken']" in caught.value.__notes__[0]


def test_a_reward_model_with_another_tokenizer_reads_the_text(ppo, tmp_path):
    """Its rewards are those of the re-tokenised text; as a critic, which reads token ids, it is refused."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "lamp": 2, "user": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", chat_template=template
    )
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(**shape, vocab_size=4, num_labels=1, pad_token_id=0))
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="has another tokenizer than the policy"):
        ppo(critic_path=str(tmp_path / "other"))

    trainer = ppo(reward_funcs=str(tmp_path / "other"), missing_eos_penalty=0.0, max_steps=1)
    seen = []
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *a: (seen.append((a[1], a[2], calculate(*a))), seen[-1][2])[1]
    trainer.train()
    prompts, completions, rewards = seen[0]
    for prompt, completion, reward in zip(prompts, completions, rewards[:, 0], strict=True):
        ids = tokenizer(
            tokenizer.apply_chat_template(prompt + completion, tokenize=False), return_tensors="pt"
        ).input_ids
        torch.testing.assert_close(model(ids).logits[0, 0], reward, rtol=0, atol=1e-5)
