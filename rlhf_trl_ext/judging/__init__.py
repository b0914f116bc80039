"""Questions to language models over HTTP: judging and AI-feedback labels share one client."""
