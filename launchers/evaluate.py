"""Compare samples of policies with a baseline: `python -m launchers.evaluate baseline=... policies={...}`."""

from launchers.entry import entry


@entry("evaluate")
def main(config):
    from hydra import compose
    from rich.console import Console
    from rich.pretty import pprint

    from evaluation.verdicts.correction import in_words as corrected_in_words
    from evaluation.verdicts.evaluate import Evaluation
    from evaluation.verdicts.results import table
    from rlhf_trl_ext.configuration.checks import as_config_error

    with as_config_error():
        evaluation = Evaluation(config, lambda name: compose("evaluate", overrides=[f"judge={name}"]).judge)
        if config.dry_run:
            pprint(evaluation.preview())
            return
        results = evaluation.run()
    console = Console()
    console.width = max(console.width, 150)  # a log file has no width of its own
    console.print(table(results))
    for row in results["policies"].values():
        print(row["in_words"])
        if row.get("corrected"):
            print(corrected_in_words(row["corrected"]))
    for name, diagnostics in results.get("failures", {}).items():
        print(f"{name} flagged:", ", ".join(row["name"] for row in diagnostics if row["flagged"]) or "nothing")
    print(f"written to {evaluation.output} and {evaluation.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
