"""Stages: identity, folder, kinds, pipelines and their execution."""
