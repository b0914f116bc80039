"""Learning curves of algorithms on four reward landscapes: `python -m launchers.landscapes`."""

from launchers.entry import entry


@entry("landscapes")
def main(config):
    from hydra import compose
    from rich.console import Console

    from evaluation.comparison.landscapes.benchmark import Benchmark
    from evaluation.comparison.landscapes.show import draw, table
    from evaluation.files import write_json

    benchmark = Benchmark(config, lambda name: compose(f"algorithm/{name}"))
    benchmark.check()
    results = benchmark.run()
    write_json(benchmark.folder / "results.json", results)
    with (benchmark.folder / "results.txt").open("w") as file:
        for console in (Console(width=140), Console(width=140, file=file)):
            for landscape, rows in results.items():
                console.print(table(landscape, rows))
    for landscape, rows in results.items():
        draw(landscape, rows, benchmark.folder / f"{landscape}.png")
    print(f"written to {benchmark.folder}: results.json, results.txt and a picture of every landscape")


if __name__ == "__main__":
    main()
