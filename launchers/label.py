"""Label pairs of replies by an AI: `python -m launchers.label judge=openai dataset=hh`."""

from launchers.entry import entry


@entry("label")
def main(config):
    from rich.pretty import pprint

    from rlhf_trl_ext.stages.label import label, preview

    if config.get("dry_run"):
        pprint(preview(config))
        return
    record = label(config)
    print(f"{record['rows']:,} labels of {record['pairs']:,} pairs in {record['file']}; report: {record['report']}")


if __name__ == "__main__":
    main()
