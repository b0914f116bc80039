"""Which runs are recorded as finished, and what a signal leaves."""

import json
import signal

import pytest

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.checkpoints import damage
from rlhf_trl_ext.stages.train import train

SMALL = ("++model.build.hidden_size=32", "++model.build.layers=1", "++model.build.heads=2")


@pytest.fixture
def run(composed, few, tmp_path):
    """`run("a", *overrides)`: folder of a run of SFT over four steps."""

    def trained(name, *overrides):
        config = composed("train", "algorithm=sft", *few, *SMALL, f"output_root={tmp_path}", *overrides)
        config.output_dir = str(tmp_path / name)
        train(config)
        return tmp_path / name

    return trained


@pytest.mark.parametrize("jit", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_next_start_ends_as_an_undisturbed_run_does(jit, run, tmp_path, monkeypatch, capsys):
    settings = ["callbacks.fault._target_=faults.SignalAt", "callbacks.fault.step=2", "callbacks.fault.number=15"]
    settings = [*(f"++{setting}" for setting in settings), f"++args.enable_jit_checkpoint={jit}"]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run("cut", *settings)
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert "SIGTERM: saved at step 3 of 4" in capsys.readouterr().err.splitlines()[-1]
    folder = tmp_path / "cut"
    assert not (folder / "stage.json").exists() and not damage(folder / "checkpoint-3")
    monkeypatch.setenv("FAULTS_MENDED", "1")
    run("cut", *settings)
    assert json.loads((folder / "stage.json").read_text())["steps"] == 4
    twin = run("twin", *settings)
    assert (folder / "model.safetensors").read_bytes() == (twin / "model.safetensors").read_bytes()


def test_an_early_stop_is_finished_only_for_a_reason(run, tmp_path):
    stop = ["++callbacks.stop._target_=faults.StopAt", "++callbacks.stop.step=2"]
    with pytest.raises(ConfigError, match="training ended after 2 of 4 steps, and no callback gives a reason"):
        run("none", *stop)
    assert not (tmp_path / "none" / "stage.json").exists()
    folder = run("reason", *stop, "++callbacks.stop.reason=enough")
    record = json.loads((folder / "stage.json").read_text())
    assert (record["steps"], record["stopped"]) == (2, "enough")


def test_weights_that_are_no_numbers_are_not_recorded(run, tmp_path):
    with pytest.raises(
        ConfigError, match=r"1 of \d+ parameters of the model hold NaN or infinite weights after step 4"
    ):
        run("diverged", "++callbacks.fault._target_=faults.NotANumber", "++callbacks.fault.step=4")
    assert not (tmp_path / "diverged" / "stage.json").exists()


def test_no_step_is_no_result(run, tmp_path):
    with pytest.raises(ConfigError, match=r"no step was taken|num_train_epochs"):
        run("empty", "++args.max_steps=-1", "++args.num_train_epochs=0")
    assert not (tmp_path / "empty" / "stage.json").exists()
