"""Fixed sets of questions: answered by a policy here, judged by `launchers.evaluate`."""
