"""Serve policies behind OpenAI's routes: `python -m launchers.serve policy=outputs/demo/dpo`."""

from launchers.entry import entry


@entry("serve", positional="policy")
def main(config):
    import logging
    import os

    from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build

    try:
        import uvicorn

        from evaluation.report.dashboard.app import LOOPBACK, address, listen
        from rlhf_trl_ext.serving import Limits, create_app
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'rlhf-trl-ext[serving]'.") from error
    if bool(config.policy) == bool(config.policies):
        raise ConfigError("policy, policies: give one, policy=<folder> or 'policies={a: <folder>, b: <folder>}'.")
    keys = [key.strip() for key in os.environ.get(config.key_variable, "").split(",") if key.strip()]
    if not keys and config.host not in LOOPBACK:
        raise ConfigError(
            f"host={config.host} without keys, so that anyone may ask: export {config.key_variable}=<key>."
        )
    with as_config_error():
        listening = listen(config.host, config.port)
        url = address(config.host, listening)
        key = f' -H "Authorization: Bearer ${config.key_variable}"' if keys else ""
        body = '{"messages": [{"role": "user", "content": "Where is my umbrella?"}]}'
        curl = f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'"
        app = create_app(
            config.policy or dict(config.policies),
            engine=config.engine,
            shares=dict(config.shares) if config.shares else None,
            limits=Limits(**{name: config[name] for name in Limits.__dataclass_fields__}),
            keys=keys,
            traffic=config.traffic if config.record else None,
            keep_days=config.keep_days,
            redact=build(config.redact, "redact") if config.redact else None,
            reward=config.reward.path,
            reward_share=config.reward.share,
            engine_options=list(config.engine_options),
            max_batch_size=config.max_batch_size,
            hidden=[config.key_variable],
            any_host=config.host not in LOOPBACK,
            on_ready=lambda: print(f"serving at {url}; try:\n{curl}", flush=True),
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=30))
        logging.getLogger("uvicorn.error").addFilter(lambda record: not app.state.failure)
        try:
            server.run(sockets=[listening])
        finally:
            if app.state.failure:
                raise ConfigError(app.state.failure)


if __name__ == "__main__":
    main()
