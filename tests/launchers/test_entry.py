import re

import pytest
import yaml
from command_lines import one_after_another, python


def launch(*arguments):
    return python("-m", *arguments)


QUESTIONS = """
import contextlib, importlib, sys
for launcher in ["train", "pipeline", "generate", "evaluate", "label", "revise", "landscapes"]:
    for question in ("--help", "--cfg=job"):
        sys.argv[1:] = [question]
        with contextlib.suppress(SystemExit):  # --help ends so
            importlib.import_module(f"launchers.{launcher}").main()
        assert "torch" not in sys.modules, f"{launcher} {question}: torch was imported"
"""


def test_questions_are_answered_without_torch():
    # Two seconds are asked for; importing torch alone takes about as long, so its absence is what is asserted.
    done = python("-c", QUESTIONS)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^output_root:", done.stdout, re.MULTILINE)) == 14


def test_arguments_may_be_given_together_and_leave_the_others():
    done = launch(
        "launchers.pipeline", "experiment=demo", "stages.grpo.args={max_steps: 3, loss_type: dapo}", "--cfg=job"
    )
    config = yaml.safe_load(done.stdout)
    assert config["stages"]["grpo"]["args"]["max_steps"] == 3 and config["stages"]["grpo"]["args"]["beta"] == 0.3


MISTAKES = [
    (["launchers.train", "algorithm=gropo"], "algorithm=gropo: no such choice; allowed are dpo, grpo, "),
    (["launchers.train", "datset=hh"], "datset=hh: no such key; did you mean dataset?"),
    (["launchers.train", "learning_rate=abc"], "learning_rate=abc: no such key; an argument of TRL's config"),
    (["launchers.train", "algorithm=dpo", "args.beta=x"], "args.beta=x: float is needed"),
    (["launchers.pipeline", "policies=[dpo,gropo]"], "algorithm=gropo: no such choice"),
    (["launchers.pipeline", "stages.dpo.args.lerning_rate=1"], "stages.dpo.args.lerning_rate=1: DPOConfig has"),
    (["launchers.train", "+arg.x=1"], "arg.x=1: no such key; did you mean args?"),
    (["launchers.train", "stages.sft.kind=label", "stages.foo.args.x=1"], "stages.foo.args.x=1: this run is the stage"),
    (["launchers.label", "pairs.foo=1"], "pairs.foo=1: no such key"),
    (["launchers.train", "args.output_dir=x"], "args.output_dir=x: a run's folder is given by output_dir=<folder>"),
    (["launchers.generate", "policy=x", "kind=label"], "kind=label: that is a stage of launchers.label"),
    (["launchers.train", "model=stories260k"], "model.model_name_or_path has no value"),
    (["launchers.train", "dataset.prompts=0"], "dataset.prompts=0 of dataset=embedded is not allowed"),
    (["launchers.train", "seed=${seed}"], "dataset.seed: its ${...} cannot be resolved (Recursive"),
    (["launchers.train", "args.max_steps=${oc.env:ABSENT}"], "args.max_steps: its ${...} cannot be resolved"),
    (["launchers.train", "args.max_steps=1="], "args.max_steps=1=: "),
    (["launchers.pipeline", "reward.stage=nope"], "reward.stage or reward.needs: there is neither a stage nor an"),
    (["launchers.benchmark", "settings={embedded: {foo: 1}}"], "settings.embedded.foo: no such key; a pipeline"),
    (["launchers.train", "args.max_steps=[1,2"], "args.max_steps=[1,2: no viable alternative"),
    (["launchers.train", "=3"], "an override is written key=value"),
    (["launchers.plan", "model=null"], "model=null: model is a group of settings; allowed are 0.5b, "),
    (["launchers.train", "judge=gold"], "judge=gold: this launcher has no group judge"),
    (["launchers.train", "args=3"], "args is missing: "),
    (["launchers.report"], "folder has no value: give folder=<value>."),
    (["launchers.evaluate"], "baseline has no value: give baseline=<value>."),
    (["launchers.evaluate", "baseline=absent", "policies={a: b}"], "baseline=absent: no such file"),
]


def foreign(folder):
    """Commands that run somebody else's stage folders, and what is answered."""
    stage = "defaults: [hydra_settings, _self_]\nname: dpo\nseed: 0\nstages: {}\n"
    for name, more in {
        "target": "callbacks: {a: {_target_: os.system, command: date}}",
        "hydra": "hydra: {callbacks: {a: {_target_: os.system}}}",
        "trust": "trust: [os]",
    }.items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(stage + more)
    run = ["launchers.train", "--config-name", "config", "--config-dir"]
    yield [*run, str(folder / "target")], "callbacks.a._target_=os.system: it is none of this project"
    yield [*run, str(folder / "hydra")], f"{folder / 'hydra' / 'config.yaml'}: it holds the key hydra"
    yield [*run, str(folder / "trust")], "trust=[os] stands in a file"


def choices_of_an_own_folder(folder):
    """Commands that name none of an own config folder's choices."""
    for group in ("algorithm", "dataset"):
        (folder / group).mkdir(parents=True)
        (folder / group / "mine.yaml").touch()
    own = ["--config-dir", str(folder)]
    yield ["launchers.train", *own, "algorithm=absent"]
    yield ["launchers.generate", "seed=1", *own, "dataset=absent"]
    yield ["launchers.pipeline", *own, "policies=[absent]"]


def test_mistakes_are_answered_in_one_sentence(tmp_path):
    done = launch("launchers.train", "algorithm=gropo")
    assert done.returncode == 1 and done.stderr.startswith("error: algorithm=gropo"), done.stderr
    others, own = list(foreign(tmp_path)), list(choices_of_an_own_folder(tmp_path / "own"))
    printed = one_after_another([*(arguments for arguments, _ in [*MISTAKES, *others]), *own])
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(MISTAKES) + len(others) + len(own), printed
    assert all(told in printed for _, told in others), printed
    for line in lines[-len(own) :]:
        assert "=absent: no such choice; allowed are " in line
        assert "mine" in re.findall(r"[\w.]+", line.partition("allowed are")[2]), line
    for line, (arguments, told) in zip(lines, MISTAKES, strict=False):
        assert line.startswith(f"error: {told}"), (arguments, line)


@pytest.mark.slow
def test_an_algorithm_is_one_file(tmp_path, few):
    """The README's recipe "add an algorithm", followed."""
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "ipo.yaml").write_text(
        "# @package _global_\n"
        "defaults: [_base, _self_]\n"
        "name: ipo\n"
        "view: preferences\n"
        "needs: {sft: model.model_name_or_path}\n"
        "trainer: {_target_: trl.DPOTrainer, _partial_: true}\n"
        "args: {_target_: trl.DPOConfig, loss_type: [ipo]}\n"
    )
    here = ["--config-dir", str(tmp_path), f"output_root={tmp_path}"]
    done = launch("launchers.train", *here, "algorithm=ipo", *few)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("stages/ipo-*/model.safetensors"))
