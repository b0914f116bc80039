from judging.conftest import endpoint  # noqa: F401
