import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.checks import build, check


def names(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml") if not path.stem.startswith("_"))


@pytest.mark.parametrize("algorithm", names("algorithm"))
def test_every_algorithm_composes_and_its_args_instantiate(algorithm, composed, tmp_path):
    config = composed("train", f"algorithm={algorithm}")
    assert config.name == algorithm
    args = build(config.args, "args", output_dir=str(tmp_path))
    assert args.seed == 0 and args.use_cpu
    check(config.trainer, "trainer")


@pytest.mark.parametrize("model", names("model"))
def test_every_model_composes_and_is_accepted(model, composed):
    config = composed("train", f"model={model}", "++model.model_name_or_path=somewhere")
    arguments = build(config.model, "model")
    assert arguments.checkpoint(None) == "somewhere"
    assert (arguments.trainer_arguments()["peft_config"] is not None) == arguments.use_peft


@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_dataset_composes_and_constructs(dataset, composed):
    config = composed("train", f"dataset={dataset}")
    assert hasattr(build(config.dataset, "dataset"), "load")


@pytest.mark.parametrize("judge", names("judge"))
@pytest.mark.parametrize("launcher", ["label", "evaluate"])
def test_every_judge_composes_and_constructs(launcher, judge, composed, tmp_path):
    config = composed(launcher, f"judge={judge}", f"output_root={tmp_path}")
    if "model" in config.judge or OmegaConf.is_missing(config.judge, "model"):
        config.judge.model = "somewhere"
    assert build(config.judge, "judge").name


def test_a_labelling_constructs(composed):
    config = composed("label")
    assert build(config.labelling, "labelling").average == "arithmetic"


@pytest.mark.parametrize("experiment", names("experiment"))
@pytest.mark.parametrize("launcher", ["train", "pipeline"])
def test_every_experiment_composes_with_every_launcher(launcher, experiment, composed):
    config = composed(launcher, f"experiment={experiment}")
    trained = {name: own for name, own in config.stages.items() if own.get("kind", "train") == "train"}
    used = {settings.get("algorithm", name) for name, settings in trained.items()}
    assert used <= set(names("algorithm"))


@pytest.mark.parametrize("reward", names("reward"))
def test_every_reward_gives_functions(reward, composed):
    config = composed("train", "algorithm=grpo", f"reward={reward}")
    functions = OmegaConf.to_container(config.trainer, resolve=True)["reward_funcs"]
    assert len(functions) == (2 if reward == "objectives" else 1)


def test_yaml_lists_only_differences_from_trl(composed, tmp_path):
    # A listed key is a decision: one that repeats TRL's default is none.
    for algorithm in names("algorithm"):
        own = OmegaConf.load(ROOT / "conf" / "algorithm" / f"{algorithm}.yaml").args
        own = OmegaConf.to_container(own, resolve=False)
        config = composed("train", f"algorithm={algorithm}")
        default = build(OmegaConf.create({"_target_": config.args._target_, "use_cpu": True, "bf16": False}), "args")
        for key, value in own.items():
            assert key == "_target_" or getattr(default, key) != value, (algorithm, key)


def test_files_stay_small():
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 40, path


def test_an_experiment_has_the_last_word_before_the_command_line(composed):
    config = composed("pipeline", "experiment=overoptimisation", "seed=3")
    assert config.policies == ["grpo"] and config.samples.max_new_tokens == 28 and config.seed == 3
    assert config.stages.grpo.args.beta == 0 and config.stages.grpo.args.per_device_train_batch_size == 64
