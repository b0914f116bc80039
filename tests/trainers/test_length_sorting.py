import pytest
import torch

from rlhf_trl_ext.trainers.parts import length_sorting
from rlhf_trl_ext.trainers.parts.length_sorting import length_sorted


def lengths_mask(*lengths, width):
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def test_rows_of_about_the_same_length_are_together_and_each_part_has_its_own_width():
    # By length: rows 3, 1, 4, 0, 2 of 7, 5, 3, 2, 0 tokens; two at a time are 7, 3 and, though empty, 1 wide.
    parts = length_sorted(lengths_mask(2, 5, 0, 7, 3, width=8), 2)
    assert [(rows.tolist(), width) for rows, width in parts] == [([3, 1], 7), ([4, 0], 3), ([2], 1)]


def test_with_hardly_anything_to_save_rows_stay_in_order():
    assert length_sorted(lengths_mask(8, 8, 7, 8, width=8), 2) is None  # 32 tokens of 32
    assert length_sorted(lengths_mask(8, 8, 6, 7, width=8), 2) is None  # 30 of 32: less than a tenth
    assert length_sorted(lengths_mask(8, 8, 6, 6, width=8), 2) is not None  # 28 of 32


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
def test_log_probs_and_values_are_those_of_rows_in_order(name, ppo, policy, make_trainer, tmp_path, monkeypatch):
    settings = {"steps_per_generation": 3, "per_device_train_batch_size": 4}
    if name == "ppo":
        trainer = ppo(**settings)
    else:
        from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer
        from rlhf_trl_ext.trainers.rloo import RLOOConfig, RLOOTrainer

        kinds = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[name]
        trainer = make_trainer(*kinds, policy, tmp_path, len, num_generations=4, **settings)
    trainer.model.eval()
    generator = torch.Generator().manual_seed(0)
    mask = lengths_mask(1, 40, 2, 3, 5, 22, 6, 4, 30, 9, 2, 7, width=40)
    ids = torch.randint(3, 200, (12, 45), generator=generator)
    attention = torch.cat([torch.ones(12, 5, dtype=torch.long), mask], dim=1)
    attention[::2, :2] = 0  # prompts of two lengths, padded on the left
    seen = []
    forward = trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )

    def passes():
        seen.clear()
        with torch.no_grad():
            results = list(
                trainer._get_per_token_logps_and_entropies(
                    trainer.model, ids, attention, 40, batch_size=4, compute_entropy=True
                )[:2]
            )
        if name == "ppo":
            batch = {"prompt_ids": ids[:, :5], "prompt_mask": attention[:, :5]}
            batch |= {"completion_ids": ids[:, 5:], "completion_mask": mask}
            results.append(trainer.values_in_mini_batches(batch))
        return [torch.where(mask.bool(), result, 0.0) for result in results], sum(seen)

    cut, tokens = passes()
    monkeypatch.setattr(length_sorting, "WORTH", 0.0)
    whole, all_tokens = passes()
    forward.remove()
    assert tokens < 0.7 * all_tokens
    for some, others in zip(cut, whole, strict=True):
        assert (some - others).abs().max() <= 1e-6 * others.abs().max()  # rounding of float32
