"""People compare replies in a browser: `python -m launchers.annotate baseline=... policies={...}`."""

from launchers.entry import entry


@entry("annotate")
def main(config):
    import os
    from pathlib import Path

    from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error
    from rlhf_trl_ext.data.samples import read_samples

    try:
        import krippendorff  # noqa: F401

        from evaluation.verdicts.annotation import Annotation, in_words
        from evaluation.verdicts.annotation_page import page
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'rlhf-trl-ext[annotate]'.") from error
    accounts = [tuple(one.split(":", 1)) for one in os.environ.get(config.accounts_variable, "").split(",") if one]
    if any(len(one) != 2 for one in accounts):
        raise ConfigError(f"{config.accounts_variable}: name:password,name:password is needed.")
    if not accounts and config.host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(f"host={config.host} without accounts: export {config.accounts_variable}=<name>:<password>.")
    with as_config_error():
        samples = {name: read_samples(path, f"policies.{name}") for name, path in config.policies.items()}
        baseline = read_samples(config.baseline, "baseline")
        annotation = Annotation(baseline, samples, Path(config.output), config.max_pairs, config.seed)
    print(f"{len(annotation.pairs)} pairs: http://{config.host}:{config.port}; end with Ctrl-C", flush=True)
    try:
        page(annotation, bool(accounts)).launch(
            server_name=config.host, server_port=config.port, auth=accounts or None, quiet=True, share=False
        )
    finally:
        print("\n".join(in_words(annotation.agreement())))


if __name__ == "__main__":
    main()
