"""Train one stage: check, load data, call TRL, record. No algorithm is named here."""

import logging
import os
from pathlib import Path

from accelerate import PartialState
from omegaconf import DictConfig

from rlhf_trl_ext.callbacks import held_out
from rlhf_trl_ext.callbacks.budget import BudgetCallback
from rlhf_trl_ext.callbacks.preemption import Preemption
from rlhf_trl_ext.callbacks.progress import ProgressLine
from rlhf_trl_ext.callbacks.records import MetricsRecorder
from rlhf_trl_ext.callbacks.watchdog import Watchdog
from rlhf_trl_ext.configuration.checks import as_config_error, build
from rlhf_trl_ext.configuration.context import prompts_fit_context
from rlhf_trl_ext.configuration.handed_on import named_refusals
from rlhf_trl_ext.configuration.preflight import preflight
from rlhf_trl_ext.configuration.row_counts import enough_rows, some_left
from rlhf_trl_ext.data import inspection
from rlhf_trl_ext.files import full_disk
from rlhf_trl_ext.models.card import write_card
from rlhf_trl_ext.models.saving import save
from rlhf_trl_ext.stages.best_metric import check_best_metric
from rlhf_trl_ext.stages.checkpoints import Checkpoints, last_whole
from rlhf_trl_ext.stages.completion import Preempted, stop_reason
from rlhf_trl_ext.stages.identity import built_folder
from rlhf_trl_ext.stages.stage import Stage, exclusive
from rlhf_trl_ext.trainers.parts.signature import accepted, check_columns
from rlhf_trl_ext.zero import runtime as zero

logger = logging.getLogger(__name__)


def train(config: DictConfig) -> dict:
    """Run a stage, reuse it when finished, or resume it from its last checkpoint; returns its record and `folder`.

    Under `accelerate launch` every process calls this. Raises ConfigError before any weights load.
    """
    stage = Stage(config)
    if stage.result:
        logger.info("%s: finished already in %s", stage.name, stage.folder)
        return {**stage.result, "folder": str(stage.folder)}
    run_name = config.args.get("run_name") or stage.folder.name
    preflight(config)
    zero.start(config.args)
    with as_config_error():
        watching = held_out.arguments(config)
    args = build(config.args, "args", output_dir=str(stage.folder), run_name=run_name, **watching)
    trainer = build(config.trainer, "trainer", **held_out.reward_functions(config))
    model, dataset = build(config.model, "model"), build(config.dataset, "dataset")
    with exclusive(stage.folder, wait=not stage.overwrites), full_disk(stage.folder):
        return {**(stage.result or _run(stage, args, trainer, model, dataset)), "folder": str(stage.folder)}


def _run(stage: Stage, args, trainer, model, dataset) -> dict:
    config, state = stage.config, PartialState()
    with as_config_error("dataset"), state.main_process_first():
        checkpoint = model.checkpoint(built_folder(config))
        tokenizer = model.tokenizer(checkpoint)
        train_dataset = dataset.load(config.view, "train", tokenizer)
        enough_rows(len(train_dataset), args)
        prompts_fit_context(train_dataset, args, tokenizer, checkpoint, model.model_revision)
        evaluates = config.evaluate or args.eval_strategy != "no"
        eval_dataset = dataset.load(config.view, "evaluation", tokenizer) if evaluates else None
    if config.held_out and evaluates:
        with as_config_error():
            eval_dataset = eval_dataset.select(held_out.prompts_to_score(config, len(eval_dataset)))
    if state.is_main_process and config.shown_rows:
        inspection.show(train_dataset, eval_dataset, config.view, tokenizer, config.shown_rows)
    args.model_init_kwargs = {**model.load_arguments(), **(args.model_init_kwargs or {})}
    if "wandb" in args.report_to and "WANDB_MODE" not in os.environ:
        import wandb

        if not wandb.login(prompt=False):
            wandb.setup(wandb.Settings(mode="offline"))  # login has read the environment: a variable set now is ignored
    recorder = MetricsRecorder(stage.folder)
    callbacks = [recorder, Checkpoints(args.save_total_limit), *_callbacks(config, stage.folder, recorder)]
    args.save_total_limit = None  # Checkpoints removes the old ones
    data = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "processing_class": tokenizer}
    with as_config_error(), named_refusals(args, model):
        check_columns(getattr(trainer, "keywords", {}).get("reward_funcs"), train_dataset.column_names)
        extra = accepted(trainer, {**data, "callbacks": callbacks, **model.trainer_arguments()})
        trainer = trainer(model=checkpoint, args=args, **extra)
        shortened = some_left(trainer.train_dataset, args, len(train_dataset))
    check_best_metric(trainer)
    for callback in callbacks:
        if hasattr(callback, "attach"):
            callback.attach(trainer)
    if state.is_main_process:
        stage.begin()
        if shortened:
            logger.warning(shortened)
    with named_refusals(args, model):
        stopped = _train(stage, trainer)
    metrics = trainer.evaluate() if config.evaluate else {}
    with as_config_error():
        save(trainer, stage.folder, model.merge_adapter)
    run = {"name": stage.name, "steps": trainer.state.global_step, "world_size": args.world_size, "metrics": metrics}
    run |= {"stopped": stopped} if stopped else {}
    record = {**run, **recorder.summary(), **held_out.best(trainer.state)}
    write_card(trainer, config, config.model.model_name_or_path or checkpoint, len(train_dataset), record)
    return stage.finish(record) if state.is_main_process else record


def _train(stage: Stage, trainer) -> str | None:
    """Train from the last whole checkpoint on; returns why training stopped early, None after all of its steps."""
    checkpoint = last_whole(stage.folder)
    if checkpoint and PartialState().is_main_process:
        logger.warning("%s goes on from %s", stage.name, checkpoint)
    preemption, line = Preemption(), ProgressLine(stage.name)
    line.attach(trainer)
    for callback in (preemption, line):
        trainer.add_callback(callback)
    with preemption, line:
        trainer.train(resume_from_checkpoint=checkpoint)
    if preemption.signal:
        raise Preempted(preemption.signal, trainer)
    return stop_reason(trainer)


def _callbacks(config: DictConfig, folder: Path, recorder: MetricsRecorder) -> list:
    """The configured callbacks. One that has `attach(trainer)` gets the trainer before training begins."""
    callbacks = [] if config.get("step_timeout") is None else [Watchdog(config.step_timeout)]
    callbacks += [BudgetCallback(recorder, **config.budget)] if config.get("budget") else []
    callbacks += [held_out.HeldOutRewards()] if config.held_out else []
    callbacks += [build(config[name], name) for name in ("monitor", "profile") if config.get(name)]
    return callbacks + [build(node, f"callbacks.{name}") for name, node in (config.get("callbacks") or {}).items()]
