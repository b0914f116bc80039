import json
from types import SimpleNamespace

import pytest
import torch
from stages.test_training import ONLINE, folder_of, run
from trl.extras.profiling import ProfilingContext

from rlhf_trl_ext.callbacks import profile_report
from rlhf_trl_ext.callbacks.phases import PHASES, PhaseTimer

CRITIC = ["++args.critic_path=null"]
ALGORITHMS = [
    ("grpo", ONLINE, {"generate", "score", "reference", "forward", "backward", "optimizer", "data"}),
    ("dpo", [], {"reference", "forward", "backward", "optimizer", "data"}),
    (
        "ppo",
        [*ONLINE, *CRITIC, "++args.num_iterations=1"],
        {"generate", "score", "reference", "forward", "backward", "optimizer"},
    ),
    ("grpo_vi", [*ONLINE, *CRITIC], {"generate", "score", "forward", "backward", "optimizer"}),
    ("grpo_offpolicy", ONLINE, {"generate", "score", "forward", "backward", "optimizer"}),
    ("sft", [], {"forward", "backward", "optimizer", "data"}),
    ("reward", [], {"forward", "backward", "optimizer", "data"}),
    ("rloo", ONLINE, {"generate", "score", "forward", "backward", "optimizer"}),
    ("kto", [], {"forward", "backward", "optimizer", "data"}),
]


def clock(*times):
    """A clock that shows these seconds, one after the other."""
    return iter(times).__next__


def test_every_moment_belongs_to_one_phase():
    # start 0; generate from 1 to 9, in it a forward pass from 2 to 3, which is part of generating, and weights sent
    # from 4 to 6; then until 10 nothing in particular.
    timer = PhaseTimer(clock=clock(0, 1, 2, 3, 4, 6, 9, 10))
    with timer.frame("_generate", "generate"):
        with timer.frame("model", "forward"):
            pass
        with timer.frame("sync_weights", "sync"):
            pass
    timer.charge()
    assert dict(timer.phases) == {"other": 2.0, "generate": 6.0, "sync": 2.0}
    assert timer.paths[("step", "_generate", "model")] == 1.0
    assert timer.slices[-1] == ("_generate", "generate", 1, 8)


def test_a_failing_call_ends_its_frame():
    timer = PhaseTimer()
    with pytest.raises(ZeroDivisionError):
        timer.timed(lambda: 1 / 0, "score")()
    assert timer.stack == [("step", "other")]


def test_advice_names_the_largest_excess_first():
    told = profile_report.suggestions({"generate": 6.0, "score": 3.5, "data": 0.1, "forward": 0.4}, step=10.0)
    # generation is 20 points over its 40 %, scoring 15 over its 20 %, the others below theirs
    assert [line.split(":")[0] for line in told] == ["60% of the step is generate", "35% of the step is score"]


@pytest.mark.parametrize(
    "algorithm, more, expected",
    [pytest.param(*case, marks=[] if case[0] == "grpo" else pytest.mark.slow, id=case[0]) for case in ALGORITHMS],
)
def test_the_phases_are_the_step(algorithm, more, expected, composed, few, tmp_path):
    before = ProfilingContext.__enter__, ProfilingContext.__exit__
    run(composed, few, tmp_path, algorithm, *more, "profile=on", "++args.beta=0.1" if algorithm == "grpo" else "seed=0")
    assert (ProfilingContext.__enter__, ProfilingContext.__exit__) == before
    folder = folder_of(tmp_path, algorithm)
    result = json.loads((folder / "profile.json").read_text())
    assert set(result["phases"]) == set(PHASES) and result["steps"] == 3
    assert sum(result["phases"].values()) == pytest.approx(result["step_seconds"], rel=0.03)
    assert {name for name, seconds in result["phases"].items() if seconds > 0} >= expected
    memory = result["memory_mb"]
    assert memory["policy"] > 0 and memory["peak"] > memory["policy"]
    # Two moments of Adam for each weight that is trained, all in fp32; GRPO-VI's gains of tokens are beside the critic.
    assert memory["optimizer"] == pytest.approx(2 * (memory["policy"] + memory["critic"]), rel=0.03)
    events = json.loads((folder / "profile_trace.json").read_text())["traceEvents"]
    assert all(event["dur"] >= 0 and event["ph"] == "X" for event in events)
    assert any(event["name"] == "optimizer" for event in events)
    assert (folder / "profile.folded").read_text().startswith("step")


@pytest.mark.slow
def test_operators_are_traced_when_asked_for(composed, few, tmp_path):
    run(composed, few, tmp_path, "sft", "profile=on", "profile.operators=1")
    trace = json.loads((folder_of(tmp_path, "sft") / "profile_operators.json").read_text())
    assert any("mm" in event.get("name", "") for event in trace["traceEvents"])


def test_weights_that_are_spread_over_processes_count_where_they_are():
    spread = SimpleNamespace(ds_tensor=torch.zeros(2**18))
    assert profile_report._size([spread, torch.zeros(2**18)]) == 2.0
