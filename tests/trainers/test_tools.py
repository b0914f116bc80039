"""TRL's tools and environments, named in the configuration."""

import functools
import sys
from pathlib import Path

import pytest
import trl

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.reward_names import resolve_names
from rlhf_trl_ext.stages.train import train
from rlhf_trl_ext.trainers.grpo import GRPOTrainer
from rlhf_trl_ext.trainers.parts.signature import accepted
from rlhf_trl_ext.trainers.rloo import RLOOTrainer

MODULE = '''
class Desk:
    """An environment with one tool."""

    resets = 0

    def reset(self, **row):
        Desk.resets += 1

    def shelf(self, number: int) -> str:
        """The shelf of a parcel.

        Args:
            number: The parcel's number.
        """
        return str(number)


def look_up(name: str) -> str:
    """Who a parcel belongs to.

    Args:
        name: The visitor's name.
    """
    return name
'''


@pytest.mark.slow
def test_an_environment_and_a_tool_are_trained_with(composed, few, tmp_path, monkeypatch):
    (tmp_path / "front_desk.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"  # the tiny model's own knows no tools
    named = ["++trainer.environment_factory=front_desk.Desk", "++trainer.tools=[front_desk.look_up]"]
    steps = ["++args.max_steps=1", "++args.max_completion_length=8"]
    overrides = ["algorithm=grpo", "reward=gold", f"model.chat_template={template}", f"output_root={tmp_path}"]
    config = composed("train", *overrides, *few, *steps, *named)
    resolve_names(config)
    assert train(config)["steps"] == 1
    assert sys.modules["front_desk"].Desk.resets >= 8  # of the batch; TRL looks at one more for its tools


def test_a_trainer_without_tools_says_so():
    with pytest.raises(ConfigError, match=r"trainer\.tools: RLOOTrainer has no argument tools; leave it out"):
        accepted(functools.partial(RLOOTrainer, tools=[len]), {})
    assert accepted(functools.partial(GRPOTrainer, tools=[len]), {}) == {}
