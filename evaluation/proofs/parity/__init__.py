"""Agreement with TRL's last PPO, which lives in an environment of its own (`make ppo-parity`)."""
