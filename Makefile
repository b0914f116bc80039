# make help lists the targets. Everything happens in .venv, which `make` sets up by itself.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: tiny models are no faster with two, and stages run side by side.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu demo smoke loop test test-all test-slow kills ops lint overhead gpu vllm ppo-parity trl-latest pictures clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready  ## create .venv (again only when the dependency files change)

.venv/.ready: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (about two minutes, once)"
	@DS_BUILD_OPS=0 $(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev,tensorboard,benchmarks,pdf,sweeps,math,export,serving]'
	@touch $@

setup-gpu: .venv/.ready-gpu  ## the same with CUDA, vLLM and bitsandbytes (Linux; several gigabytes)

.venv/.ready-gpu: pyproject.toml .ci/constraints-gpu.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints-gpu.txt -e '.[dev,tensorboard,benchmarks,pdf,sweeps,math,export,serving,vllm,quantization]'
	@touch .venv/.ready $@

demo: setup  ## SFT, reward model and five policies on the embedded task, compared (minutes on two cores)
	$(BIN)/python -m launchers.pipeline experiment=demo

smoke: setup  ## the demo in under a minute: every stage, a few steps each
	$(BIN)/python -m launchers.pipeline experiment=smoke

loop: setup  ## a served policy, simulated users, their feedback, the policy trained on it: better by gold? (minutes)
	$(BIN)/python -m evaluation.proofs.loop

test: setup  ## the quick tests (at most 4 minutes on two cores, offline)
	$(BIN)/python -m pytest -m "not slow and not gpu and not vllm" -n auto --maxprocesses 4 --dist loadfile

test-all: ops  ## the slow tests as well (several processes, faults, real data)
	$(BIN)/python -m pytest -m "not gpu and not vllm" -n 2 --dist loadfile

test-slow: ops  ## only the slow ones
	$(BIN)/python -m pytest -m "slow and not gpu and not vllm" -n 3 --dist loadfile

kills: setup  ## 50 SIGKILLs at random moments over the algorithms; every resumed run must equal its twin (minutes)
	$(BIN)/python -m evaluation.proofs.faults.sigkill --kills 50

ops: setup  ## compile DeepSpeed's operators for CPUs and offload ahead (minutes, once)
	$(BIN)/python -m rlhf_trl_ext.zero.ops

lint: setup  ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

overhead: setup  ## step time of this project against bare TRL (minutes)
	$(BIN)/python -m evaluation.proofs.speed.overhead

gpu:  ## on a CUDA machine, 12 minutes: speed and memory against TRL, the planner, the tests that need it (nothing is downloaded)
	$(BIN)/python -m evaluation.proofs.gpu $(if $(wildcard .venv-trl112/.ready),--trl112 .venv-trl112/bin/python)

vllm: .venv-vllm/.ready  ## the real vLLM on a CPU, beside the trainers and as a server (own environment on top of .venv)
	@# An engine keeps its gigabyte until its process ends, so five tests a process.
	.venv-vllm/bin/python -m pytest -m vllm --collect-only tests/vllm_engine | grep :: | \
	  xargs -d '\n' -n 5 .venv-vllm/bin/python -m pytest -m vllm

.venv-vllm/.ready: .venv/.ready .ci/constraints-vllm.txt .ci/vllm-environment
	@.ci/vllm-environment
	@touch $@

ppo-parity: setup .venv-trl112/.ready  ## PPO against TRL 1.12's, the last TRL with one (own environment, two minutes)
	$(BIN)/python -m evaluation.proofs.parity.ppo --reference .venv-trl112/bin/python

.venv-trl112/.ready:
	@test -x .venv-trl112/bin/python || $(PYTHON) -m venv .venv-trl112
	@.venv-trl112/bin/pip install --quiet --disable-pip-version-check trl==1.12.0 transformers==5.23.0 torch==2.13.0
	@touch $@

# Private hooks and a few steps of every algorithm on TRL's newest release; built anew each time, or it would not be newest.
trl-latest:  ## the hooks and the smoke test against the newest TRL (own environment, minutes)
	@test -x .venv-trl-latest/bin/python || $(PYTHON) -m venv .venv-trl-latest
	@DS_BUILD_OPS=0 .venv-trl-latest/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@.venv-trl-latest/bin/pip install --quiet --disable-pip-version-check --upgrade --no-deps trl
	.venv-trl-latest/bin/python -m pytest tests/trainers/test_trl_hooks.py
	.venv-trl-latest/bin/python -m launchers.pipeline experiment=smoke 'policies=[dpo,kto,grpo,rloo,ppo]' output_root=outputs/trl-latest

pictures: demo  ## the pictures in the READMEs, from the demo (needs Chromium; minutes)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[annotate]'
	$(BIN)/python -m evaluation.report.pictures outputs/demo

clean:  ## remove outputs and caches, keep .venv
	rm -rf outputs .pytest_cache .ruff_cache wandb
