"""What `--help` of a launcher shows: its own groups, a line a choice, and its settings with their comments."""

import sys

import pytest
import yaml

from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.configuration.help import description

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


@pytest.fixture
def shown(monkeypatch, capsys):
    """`shown(launcher, *arguments)`: the lines of its help."""

    def run(launcher, *arguments):
        from importlib import import_module

        monkeypatch.setattr(sys, "argv", [launcher, *arguments, "--help"])
        with pytest.raises(SystemExit):
            import_module(f"launchers.{launcher}").main()
        return capsys.readouterr().out.splitlines()

    return run


def groups_of(lines):
    return [line.partition("=")[0] for line in lines if line.partition("=")[0] in GROUPS]


def test_a_launcher_shows_its_own_groups_and_what_it_chooses_of_them(shown):
    lines = shown("generate", "model=1b")
    assert groups_of(lines) == ["dataset", "reward", "held_out", "model"]
    assert "model=1b" in lines and "held_out=null" in lines
    assert any(line.startswith("  hh ") and "Anthropic HH" in line for line in lines)
    assert groups_of(shown("serve")) == []


def test_a_group_that_is_read_twice_is_listed_once(shown):
    lines = shown("pipeline", "experiment=rlaif")
    assert "judge@labeller=noisy_gold  (as judge)" in lines
    assert sum(line.startswith("  constitution ") for line in lines) == 1


def test_settings_stand_below_their_own_comments(shown):
    lines = shown("pipeline")
    at = lines.index("jobs: null")
    assert lines[at - 1].startswith("# Stages side by side") and not lines[at - 2].startswith("#")
    assert sum(line.startswith("shares:") for line in lines) == 1  # the pipeline's, not base.yaml's
    assert not any(line.startswith(("defaults:", "hydra:", "held_out:")) for line in lines)
    assert "reference: ${policy}" in shown("generate")
    assert "sweep: {metric: null, maximize: null}" in lines
    assert not any(line.startswith("sweep:") for line in shown("benchmark"))  # which does not read it
    assert not any(line.startswith("step_timeout:") for line in shown("chat"))


def test_choices_of_a_folder_of_ones_own_are_listed(shown, tmp_path):
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "mine.yaml").write_text("# @package _global_\n# Mine. And more.\ndefaults: [dpo]\n")
    assert "  mine              Mine" in shown("train", "--config-dir", str(tmp_path))


def test_every_choice_says_in_one_line_what_it_is():
    lines = {path: description(path) for group in GROUPS for path in (CONF / group).glob("[!_]*.yaml")}
    assert not [str(path) for path, line in lines.items() if not line or line[-1] in ",(" or len(line) > 110]


def test_a_command_is_no_description(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("# python -m launchers.pipeline experiment=x\n# What x is; and how.\na: 1\n")
    assert description(file) == "What x is"
    file.write_text("# python -m launchers.pipeline experiment=x: what x is.\n")
    assert description(file) == "what x is"
    file.write_text("a: 1  # no comment of the file\n")
    assert description(file) == ""


def test_no_template_is_written_by_hand():
    for path in CONF.glob("*.yaml"):
        template = (yaml.safe_load(path.read_text()).get("hydra") or {}).get("help", {}).get("template", "")
        assert "$CONFIG" not in template and "$APP_CONFIG_GROUPS" not in template, path
