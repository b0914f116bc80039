"""One override, one meaning: the command line has the last word, in every form that Hydra takes."""

import functools

import pytest

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.configuration.overrides import opened, options_last, training_config
from rlhf_trl_ext.stages.pipeline import Pipeline

# demo says 60 steps of DPO and 200 of SFT.
FORMS = ["args.max_steps=2", "args={max_steps: 2}", "+args.max_steps=2", "++args.max_steps=2", "+args={max_steps: 2}"]
OF_STAGE = ["stages.dpo.args.max_steps=2", "stages.dpo.args={max_steps: 2}", "stages.dpo={args: {max_steps: 2}}"]
OF_STAGE += ["stages={dpo: {args: {max_steps: 2}}}", "+stages.dpo.args.max_steps=2", "++stages.dpo.args.max_steps=2"]


@functools.cache
def algorithm(name):
    return compose_config(f"algorithm/{name}")


@pytest.mark.parametrize("override", FORMS + OF_STAGE)
def test_a_training_run_takes_what_the_command_line_says(override):
    config = compose_config("train", ["experiment=demo", "algorithm=dpo", override])
    assert training_config(config, "dpo").args.max_steps == 2


@pytest.mark.parametrize("override", [*FORMS[:2], OF_STAGE[0], OF_STAGE[2]])
def test_a_pipeline_takes_what_the_command_line_says(override):
    pipeline = Pipeline(compose_config("pipeline", ["experiment=demo", "policies=[dpo]", override]), algorithm)
    steps = {name: pipeline.configs[name].args.max_steps for name in ("dpo", "sft")}
    assert steps == {"dpo": 2, "sft": 2 if override in FORMS else 200}


def test_what_is_said_of_one_stage_wins_over_what_is_said_of_all():
    said = ["stages.dpo.args.max_steps=2", "args={max_steps: 3, learning_rate: 0.5}"]
    pipeline = Pipeline(compose_config("pipeline", ["experiment=demo", "policies=[dpo]", *said]), algorithm)
    assert (pipeline.configs["dpo"].args.max_steps, pipeline.configs["dpo"].args.learning_rate) == (2, 0.5)
    assert pipeline.configs["sft"].args.max_steps == 3
    # and over what the algorithm's own file says: grpo has beta 0.04, the experiment 0.3
    pipeline = Pipeline(
        compose_config("pipeline", ["experiment=demo", "policies=[grpo]", "stages.grpo.args.beta=0.7"]), algorithm
    )
    assert pipeline.configs["grpo"].args.beta == 0.7


def test_options_may_stand_anywhere(tmp_path):
    (tmp_path / "a=b").mkdir()
    folder = str(tmp_path / "a=b")
    words = ["--config-dir", folder, "grpo", "-m", "seed=1", "--cfg", "job", "--info", "x=2", "--config-dir=y"]
    assert options_last(words) == [
        *("grpo", "seed=1", "x=2"),
        *("--config-dir", folder, "-m", "--cfg", "job", "--info", "--config-dir=y"),
    ]


def test_what_is_taken_away_is_gone_from_the_experiment_too():
    config = compose_config("train", ["experiment=demo", "algorithm=dpo", "+args.max_steps=5", "~args.save_steps"])
    assert "save_steps" not in training_config(config).args
    config = compose_config("train", ["experiment=demo", "algorithm=dpo", "~stages.dpo.args.max_steps"])
    assert "max_steps" not in training_config(config).args


def test_callbacks_are_given_as_documented():
    config = compose_config("train", ["callbacks={mine: {_target_: module.Class, at: 5}}"])
    assert training_config(config).callbacks.mine.at == 5


def test_interpolations_keep_their_meaning():
    config = compose_config("train", ["experiment=demo", "algorithm=dpo", "args.max_steps=${seed}", "seed=7"])
    assert training_config(config).args.max_steps == 7


@pytest.mark.parametrize(
    "override, told",
    [
        ("+arg.x=1", "^arg.x=1: no such key; did you mean args?"),
        ("++lerning_rate=1", "^lerning_rate=1: no such key"),
        ("+samples.max_promts=3", "^samples.max_promts=3: no such key; did you mean samples.max_prompts?"),
        ("+reward.foo=1", "^reward.foo=1: no such key; reward has path, functions, stage."),
    ],
)
def test_keys_that_nobody_reads_are_refused(override, told):
    with pytest.raises(ConfigError, match=told):
        compose_config("pipeline", ["experiment=demo", override])


def test_settings_of_another_stage_are_refused_where_one_is_trained():
    for override in ("stages.sft.args.max_steps=1", "stages={foo: {args: {beta: 1}}}"):
        with pytest.raises(ConfigError, match=r"this run is the stage dpo; give stages\.dpo\.\*, or args\.\*\.$"):
            training_config(compose_config("train", ["algorithm=dpo", override]), "dpo")
    with pytest.raises(ConfigError, match=r"stages.labels.seed=1: stages are of a pipeline, and this is one run"):
        compose_config("label", ["stages.labels.seed=1"])


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("args.beta=1", "++args.beta=1"),
        ("+args.beta=1", "++args.beta=1"),
        ("args={beta: 1}", "++args={beta: 1}"),
        ("callbacks={mine: {_target_: a.B}}", "++callbacks={mine: {_target_: a.B}}"),
        ("stages.dpo={args: {beta: 1}}", "++stages.dpo={args: {beta: 1}}"),
        ("reward.functions.0.path=x", "++reward.functions.0.path=x"),
        ("pairs.foo=1", "pairs.foo=1"),  # Hydra says that it is not there
        ("model=tiny", "model=tiny"),
        ("dataset@dataset.rest=hh", "dataset@dataset.rest=hh"),
        ("~monitor.rules.loss_spike", "~monitor.rules.loss_spike"),
        ("args.learning_rate=1e-3,1e-4", "++args.learning_rate=1e-3,1e-4"),
        ("--cfg=job", "--cfg=job"),
        ("-m", "-m"),
        ("output_root=/runs/a=b (2)", "output_root='/runs/a=b (2)'"),
        ("output_root=/läufe", "output_root='/läufe'"),
        ("dataset.path=~/it's.jsonl", r"++dataset.path='~/it\'s.jsonl'"),
        ("policies={a: /a(b), b: ./c}", "policies={a: '/a(b)', b: './c'}"),
        ("pairs.files=[/a=b]", "pairs.files=['/a=b']"),
        ("policies=[dpo", "policies=[dpo"),  # Hydra says that it is no list
    ],
)
def test_keys_that_a_class_knows_are_added(argument, expected):
    assert opened(argument) == expected
