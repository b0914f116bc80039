"""Adopt a run of TRL, OpenRLHF, verl, LLaMA-Factory, Axolotl or DeepSpeed: `python -m launchers.adopt <folder>`."""

from launchers.entry import entry


@entry("adopt", positional="folder")
def main(config):
    from pathlib import Path

    from rlhf_trl_ext.adoption.run import adopt
    from rlhf_trl_ext.configuration.checks import as_config_error

    folder = Path(config.folder).expanduser()
    output = Path(config.output_dir or Path(config.output_root, "adopted", folder.resolve().name))
    with as_config_error():
        record = adopt(folder, output, trusted="pickle" in config.trust)
    print(f"{folder}: a run of {record['framework']}, adopted in {output}")
    print(f"metrics: {record['rows']} rows of {record['log']}" if record["rows"] else "metrics: no log that is known")
    if record["overrides"]:
        print("arguments: python -m launchers.train", *(f"'{each}'" for each in record["overrides"]))
    if record["lacking"]:
        print(f"without counterpart ({len(record['lacking'])}): {', '.join(record['lacking'])}")
    if record["model"]:
        print(f"model: {output / 'model'}, {record['model']}")
        print(f"next: python -m launchers.generate policy={output / 'model'}")
    else:
        print(f"model: {record['problem'] or 'no checkpoint that is known'}")


if __name__ == "__main__":
    main()
