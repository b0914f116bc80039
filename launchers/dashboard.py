"""A local page with the curves, alerts and samples of runs as they come: `python -m launchers.dashboard`."""

from launchers.entry import entry


@entry("dashboard")
def main(config):
    from evaluation.report.dashboard.runs import LoggedRuns
    from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error

    try:
        from evaluation.report.dashboard.app import serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'rlhf-trl-ext[dashboard]'.") from error
    with as_config_error():
        serve(LoggedRuns(config.output_root), config.host, config.port, config.days)


if __name__ == "__main__":
    main()
