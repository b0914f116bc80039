"""Algorithms x data sets x seeds at equal budget: `python -m launchers.benchmark algorithms=[dpo,grpo]`."""

from launchers.entry import entry


@entry("benchmark")
def main(config):
    from shlex import quote

    from hydra import compose
    from rich.console import Console

    from evaluation.comparison.benchmark import Benchmark
    from evaluation.comparison.show import common_kl, table, tuning
    from rlhf_trl_ext.configuration.checks import as_config_error

    def group(name, choice):
        if name == "algorithm":
            return compose(f"algorithm/{choice}")
        return compose("pipeline", overrides=[f"{name}={choice}"])[name]

    with as_config_error():
        benchmark = Benchmark(config, group)
        benchmark.check()
        results = benchmark.run()
    console = Console()
    console.width = max(console.width, 140)  # a log file has no width of its own
    for dataset in results["datasets"]:
        if results["tuning"]:
            console.print(tuning(results, dataset), common_kl(results, dataset) or "")
        console.print(table(results, dataset))
    for sentence in results["in_words"]:
        print(f"- {sentence}")
    command = f"python -m launchers.report {quote(str(benchmark.folder))}"
    print(f"written to {benchmark.folder / 'benchmark.json'}; `{command}` draws it")


if __name__ == "__main__":
    main()
