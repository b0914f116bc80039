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
    # killed after its last checkpoint: no step is left to be run, and the summary of the run is the same
    ended = run("ended", str(tmp_path / "whole" / "checkpoint-6"))
    assert logged(ended)[-1] == logged(whole)[-1] and "train_loss" in logged(ended)[-1]


def test_it_is_trls_bit_for_bit(policy, make_trainer, tmp_path, weights, logged):
    import trl

    from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer

    def characters(completions, **kwargs):
        return [float(len(set(completion[0]["content"]))) for completion in completions]

    def run(trainer_class, args_class):
        settings = {"beta": 0.1, "num_generations": 4, "logging_steps": 3}
        trainer = make_trainer(trainer_class, args_class, policy, tmp_path, characters, **settings)
        trainer.train()
        return logged(trainer), weights(trainer.model)

    ours, theirs = run(GRPOTrainer, GRPOConfig), run(trl.GRPOTrainer, trl.GRPOConfig)
    assert ours[0] == theirs[0] and len(ours[0]) == 2
    assert all(torch.equal(value, theirs[1][name]) for name, value in ours[1].items())
