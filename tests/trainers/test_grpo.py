import torch


def test_resume_in_the_middle_of_a_sampled_batch_and_the_adapted_beta(policy, make_trainer, tmp_path, weights, logged):
    from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer

    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "beta": 0.1, "num_generations": 4}
    settings |= {"kl_target": 1e-4, "kl_horizon": 100}

    def length(completions, **kwargs):
        return [float(len(completion[0]["content"])) for completion in completions]

    def run(name, checkpoint=None):
        trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path / name, length, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    whole = run("whole")
    resumed = run("resumed", str(tmp_path / "whole" / "checkpoint-3"))
    assert logged(resumed, "train_loss") == logged(whole, "train_loss")
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())
    assert resumed.beta == whole.beta != 0.1
