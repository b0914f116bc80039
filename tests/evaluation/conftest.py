from feedback.conftest import endpoint  # noqa: F401
