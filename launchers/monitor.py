"""What recorded traffic says of the policies that were served: `python -m launchers.monitor traffic=...`."""

from launchers.entry import entry


@entry("monitor", positional="traffic")
def main(config):
    import time
    from pathlib import Path

    from omegaconf import OmegaConf
    from rich.console import Console
    from rich.markdown import Markdown

    from evaluation.files import write_json
    from evaluation.report.traffic import TrafficReport, markdown
    from rlhf_trl_ext.configuration.checks import as_config_error
    from rlhf_trl_ext.files import write

    output = Path(config.output or Path(config.traffic).parent / "monitor.json")
    since = time.time() - 3600 * config.hours if config.hours else 0.0
    with as_config_error():
        rules = OmegaConf.to_container(config.rules, resolve=True)
        results = TrafficReport(config.traffic, config.window, rules, since).results()
    text = markdown(results)
    write_json(output, results)
    write(output.with_suffix(".md"), text)
    Console(width=160).print(Markdown(text))
    print(f"written to {output} and {output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
