"""What stages need of each other, and where the folders go; nothing of it is silent."""

import functools

import pytest

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.stages.needs import placed
from rlhf_trl_ext.stages.pipeline import Pipeline, link


@functools.cache
def algorithm(name):
    return compose_config(f"algorithm/{name}")


def pipeline(*overrides):
    return Pipeline(compose_config("pipeline", ["experiment=demo", "policies=[grpo]", *overrides]), algorithm)


def test_a_need_starts_a_stage_from_the_folder_that_it_names(tmp_path):
    made = pipeline("+stages.grpo.needs={dpo: model.model_name_or_path}")
    assert made.configs["grpo"].needs == {"dpo": ["model.model_name_or_path"], "reward": ["reward.path"]}
    folders = {name: tmp_path / name for name in made.configs}
    grpo = placed(made.configs["grpo"], folders)
    assert grpo.model.model_name_or_path == str(tmp_path / "dpo")  # and not the SFT stage's, which DPO starts from
    assert grpo.trainer.reward_funcs == [str(tmp_path / "reward")]
    assert placed(made.configs["dpo"], folders).model.model_name_or_path == str(tmp_path / "sft")
    samples = placed(made.configs["samples-grpo"], folders)
    assert (samples.policy, samples.reference) == (str(tmp_path / "grpo"), str(tmp_path / "sft"))


def test_a_finished_stage_gives_its_folder_and_does_not_run(tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    (served / "stage.json").write_text('{"name": "sft", "train_seconds": 3.0}')
    made = pipeline(f"finished={{sft: {served}, reward: org/reward}}")
    assert list(made.configs) == ["grpo", "samples-sft", "samples-grpo"]
    grpo, samples = (placed(made.configs[name], made.folders | {"grpo": "g"}) for name in ("grpo", "samples-grpo"))
    assert grpo.model.model_name_or_path == str(served) and grpo.trainer.reward_funcs == ["org/reward"]
    assert (samples.policy, samples.reference) == ("g", str(served))
    assert made.records["sft"] == {
        "name": "sft", "train_seconds": 3.0, "sampled_tokens": None, "peak_memory_mb": None, "folder": str(served)
    }  # fmt: skip
    made.check()
    link(tmp_path / "results", made.folders)
    assert (tmp_path / "results" / "sft").resolve() == served and not (tmp_path / "results" / "reward").is_symlink()


def test_one_need_may_go_to_several_keys():
    made = pipeline("stages.grpo.needs={dpo: [model.model_name_or_path, reward.path]}")
    assert set(made.configs["grpo"].needs) == {"dpo"}
    assert set(made.configs["grpo"].needs.dpo) == {"model.model_name_or_path", "reward.path"}


def test_a_reward_that_no_stage_trains_is_needed_by_none():
    made = pipeline("reward=gold")
    assert made.configs["grpo"].needs == {"sft": ["model.model_name_or_path"]} and "reward" not in made.configs


@pytest.mark.parametrize(
    "override, told",
    [
        (
            "+stages.grpo.needs=[dpo,reward]",
            r"stages.grpo.needs=\[dpo, reward\]: give the key that each folder goes to, such as \{dpo: model",
        ),
        ("stages.grpo.needs={dppo: model.model_name_or_path}", "stages.grpo.needs.dppo: there is neither a stage nor"),
        ("stages.grpo.needs={dpo: null}", "stages.grpo.needs.dpo=None: give the key"),
        ("stages.grpo.needs={dpo: judge.path}", "stages.grpo.needs.dpo=judge.path: nothing reads judge.path there"),
        ("stages.sft.needs={reward: reward.path}", "stages.sft.needs.reward=reward.path: nothing reads reward.path"),
        ("stages.grpo.needs={dpo: reward.path, kto: reward.path}", "dpo and kto both go to reward.path; name one"),
        ("stages.dpo.needs={grpo: model.model_name_or_path}", None),
        ("stages.sft.needs={grpo: model.model_name_or_path}", "stages .*grpo.* need each other"),
        ("stages.foo.args.max_steps=1", "stages.foo: there is neither a stage nor an algorithm called foo"),
        ("finished={kto: outputs/kto}", "finished.kto: no stage of this pipeline needs it; it has sft, "),
        ("stages.rloo.args.max_steps=1", "stages.rloo.args.max_steps=1: this pipeline has no such stage; it has sft, "),
        ("stages.grpo.arg.beta=1", "stages.grpo.arg: no such key; a stage has algorithm, args"),
        ("stages.grpo.samples.foo=1", "stages.grpo.samples: no such key"),
        ("stages.grpo=3", "stages.grpo=3: give settings, such as stages.grpo.args"),
        ("stages.grpo.kind=trian", "kind=trian: a stage's kind is one of train, generate, label, revise"),
        ("reward.stage=[a,b]", "reward.stage=.*: name one stage"),
    ],
)
def test_what_nobody_meets_or_reads_is_refused_before_anything_runs(override, told):
    if told is None:
        with pytest.raises(ConfigError, match="this pipeline has no such stage"):  # no policy needs DPO here
            pipeline(override)
    else:
        with pytest.raises(ConfigError, match=told):
            pipeline(override)


def test_labels_are_a_stage_of_their_kind_whatever_it_is_called():
    config = compose_config("pipeline", ["experiment=rlaif_dpo"])
    made = Pipeline(config, algorithm)
    assert made.launcher("labels") == "label" and made.configs["labels"].needs == {"sft": ["pairs.policies.0"]}
    assert made.configs["soft_dpo"].needs["labels"] == ["dataset.path"] and "labels" not in made.configs["sft"].needs
    renamed = compose_config(
        "pipeline",
        [
            "experiment=rlaif_dpo",
            "~stages.labels",
            "stages.opinions={kind: label}",
            "needs_of_view={preferences: {opinions: dataset.path}}",
            "~needs_of_view.preferences.labels",
            "policies=[labels]",  # and a policy may have that name
            "stages.labels={algorithm: dpo}",
        ],
    )
    made = Pipeline(renamed, algorithm)
    assert made.launcher("opinions") == "label" and made.launcher("labels") == "train"
    assert made.configs["labels"].needs == {"opinions": ["dataset.path"], "sft": ["model.model_name_or_path"]}


@pytest.mark.parametrize("override", ["args.output_dir=x", "stages.dpo.args.resume_from_checkpoint=x"])
def test_what_a_stage_decides_is_refused_as_an_argument(override):
    with pytest.raises(ConfigError, match=r"^stages.\w+.args.(output_dir|resume_from_checkpoint)=x: "):
        pipeline("policies=[dpo]", override).check()


def test_a_training_stage_may_have_any_name():
    made = pipeline("policies=[samples-x]", "stages.samples-x={algorithm: dpo}")
    assert made.launcher("samples-x") == "train" and made.launcher("samples-samples-x") == "generate"
    with pytest.raises(ConfigError, match="the samples of dpo have this name"):
        pipeline("policies=[dpo,samples-dpo]", "stages.samples-dpo={algorithm: dpo}")
