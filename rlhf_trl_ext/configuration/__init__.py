"""Composing, checking and refusing configurations."""

from rlhf_trl_ext.configuration import resolvers

resolvers.register()  # here, so that whoever reads a configuration has them
