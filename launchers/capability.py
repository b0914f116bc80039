"""What policies forgot: `python -m launchers.capability baseline=<folder> policies={dpo: <folder>} tasks=[...]`."""

from launchers.entry import entry


@entry("capability")
def main(config):
    from evaluation.quality.benchmarks.capability import write_capability
    from rlhf_trl_ext.configuration.checks import as_config_error

    with as_config_error():
        results = write_capability(config)
    for task, models in results.items():
        for name, row in models.items():
            difference = f", {row['difference']:+.3f}" if "difference" in row else ""
            print(f"{task} {name}: {row['value']:.3f}{difference}{' FLAG' if row.get('flagged') else ''}")
    print(f"written to {config.output}")


if __name__ == "__main__":
    main()
