"""Shared by all tests: one thread, no network, a tiny model on disk, and the real data where it is at hand."""

import contextlib
import gc
import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest

from rlhf_trl_ext.configuration.composing import compose_config

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("RLHF_SHARED", ROOT.parent / "shared"))
# Arguments of short runs on a CPU, without anything beside them.
ON_CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "logging_steps": 1}


@pytest.fixture(scope="module", autouse=True)
def imported_objects_are_frozen():
    """What is imported is millions of objects, which a collection would visit; every training run makes a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def captured_output_stays_open():
    """Hydra closes all log handlers, and absl's its stream with it: one of pytest's, were it imported in a test."""
    with contextlib.suppress(ImportError):
        from absl import logging

        logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of the tiny model, untrained."""
    from rlhf_trl_ext.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def warm_processes():
    """The processes that `forked` keeps, by their environment."""
    kept = {}
    yield kept
    for process in kept.values():
        super(type(process), process).close()


@pytest.fixture
def forked(warm_processes, monkeypatch):
    """Stages of pipelines that this process runs are forked from one that all tests share, not from one of each."""
    from rlhf_trl_ext.stages import processes

    class Kept(processes.Warm):
        def close(self):
            """Other tests go on with it."""

    def start(modules, environment):
        key = frozenset((name, value) for name, value in environment.items() if name != "PYTEST_CURRENT_TEST")
        if key not in warm_processes:
            warm_processes[key] = Kept(modules, environment)
        warm_processes[key].environment = dict(environment)
        return warm_processes[key]

    monkeypatch.setattr(processes, "Warm", start)


@pytest.fixture
def composed():
    """`composed("train", "algorithm=dpo", ...)`: a configuration as a launcher gets it."""
    return lambda name, *overrides: compose_config(name, overrides)


@pytest.fixture
def few():
    """Overrides that make a run on the embedded data take seconds."""
    sizes = ("demonstrations=64", "preferences=64", "prompts=64", "evaluation=16")
    args = ("max_steps=4", "learning_rate=1e-3", "per_device_train_batch_size=8", "logging_steps=1")
    return [f"++dataset.{size}" for size in sizes] + [f"++args.{value}" for value in args]


@pytest.fixture
def offline_wandb(tmp_path, monkeypatch):
    """wandb as it is where nobody is logged in, writing below `tmp_path`."""
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.setup(wandb.Settings(root_dir=str(tmp_path), silent=True))  # it reads the environment once in a process
    yield wandb
    wandb.finish()


@pytest.fixture
def signals_end_processes():
    """Those that a shell's `nohup` and `&` let its processes ignore end what a test starts all the same."""
    names = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {name: signal.signal(name, signal.SIG_DFL) for name in names}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.fixture
def cut_off(monkeypatch):
    """`with cut_off(3): train(...)`: the run is interrupted when its third step is done."""
    from rlhf_trl_ext.stages import train as training

    @contextlib.contextmanager
    def until(step):
        class Recorder(training.MetricsRecorder):
            def on_step_end(self, args, state, control, **kwargs):
                super().on_step_end(args, state, control, **kwargs)
                if state.global_step == step:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training, "MetricsRecorder", Recorder)
            yield

    return until


@pytest.fixture
def shared():
    """Folder of real data and a real model; tests that need it are skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real data absent: set RLHF_SHARED to the folder that holds data/ and models/")
    return SHARED


class DistinctCharacters:
    """A reward that differs between the completions of an untrained model: the characters that it uses."""

    __name__ = "distinct_characters"

    def __call__(self, completions, **kwargs):
        return [float(len(set(completion[0]["content"]))) for completion in completions]
