"""Talk to a policy in the terminal, or to several side by side: `python -m launchers.chat policy=outputs/demo/dpo`."""

from launchers.entry import entry


@entry("chat", positional="policy")
def main(config):
    import sys

    from transformers import set_seed

    from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build
    from rlhf_trl_ext.models.chatting import Chatter

    policies = {"": config.policy} if config.policy else dict(config.policies or {})
    if not policies or (config.policy and config.policies):
        raise ConfigError("policy, policies: give one, policy=<folder> or 'policies={a: <folder>, b: <folder>}'.")
    set_seed(config.seed)
    with as_config_error():
        arguments = [build(config.model, "model", model_name_or_path=path) for path in policies.values()]
        options = (config.samples.max_new_tokens, config.samples.temperature, config.system)
        chatters = [
            Chatter(*policy, model, *options) for policy, model in zip(policies.items(), arguments, strict=True)
        ]
    asks = sys.stdin.isatty()
    while True:
        if asks:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        for chatter in chatters:
            if not line.strip():
                chatter.forget()
                continue
            print(f"{chatter.name}: " if chatter.name else "", end="")
            for piece in chatter.reply(line.strip()):
                print(piece, end="", flush=True)
            print()


if __name__ == "__main__":
    main()
