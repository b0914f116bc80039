"""Export a model to another runtime and verify it by running: `python -m launchers.export policy=... format=onnx`."""

from launchers.entry import entry


@entry("export", positional="policy")
def main(config):
    import logging
    from pathlib import Path

    from rich.console import Console

    from evaluation.files import write_json
    from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build
    from rlhf_trl_ext.serving import export, verification
    from rlhf_trl_ext.stages.identity import built_folder

    logging.getLogger().setLevel(logging.WARNING)  # of what graphs are simplified by
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    own = f"{Path(config.policy.rstrip('/')).name}-{config.format}-{config.precision}"
    output = Path(config.output or Path(config.output_root) / "exports" / own)
    if config.build and output.exists() and not config.overwrite:
        raise ConfigError(f"output={output} exists: give overwrite=true, or build=false to verify what is there.")
    if not config.build and not output.is_dir():
        raise ConfigError(f"output={output} with build=false: no such export; leave build=false out.")
    dataset = build(config.dataset, "dataset")
    model = build(config.model, "model", model_name_or_path=config.policy)
    with as_config_error():
        policy = export.folder_of(model, built_folder(config))
        if reason := export.refusal(policy, config.format, config.precision):
            raise ConfigError(reason)
        tokenizer = model.tokenizer(policy)
        view = "preferences" if export.is_reward_model(policy) else "prompts"
        rows = list(dataset.load(view, "evaluation"))[: config.prompts]
        settings = (config.format, config.precision, tokenizer)
        if config.build:
            export.export(policy, *settings, output)
        record = verification.verify(policy, output, *settings, rows, config.max_new_tokens)
    record["policy"] = config.policy  # also where its adapters were merged elsewhere
    write_json(output / "export.json", record)
    Console(width=110).print(verification.table(record))
    print(f"{output}: {verification.in_words(record)}")
    if config.precision == "fp32" and not record["same"]:
        raise ConfigError(
            f"{output} differs from policy={config.policy} in fp32, so it is no export of it; build it anew."
        )


if __name__ == "__main__":
    main()
