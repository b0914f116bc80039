"""Results as one HTML file, PDF and pictures: `python -m launchers.report outputs/benchmark`."""

from launchers.entry import entry


@entry("report", positional="folder")
def main(config):
    import inspect

    from omegaconf import OmegaConf

    from evaluation.report.page import report
    from rlhf_trl_ext.configuration.checks import as_config_error

    arguments = OmegaConf.to_container(config, throw_on_missing=True)
    with as_config_error():
        written = report(**{key: arguments[key] for key in inspect.signature(report).parameters})
    for kind, path in written.items():
        print(f"{kind}: {path}")


if __name__ == "__main__":
    main()
