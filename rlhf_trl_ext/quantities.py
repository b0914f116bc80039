"""Kinds of numbers, for the annotations of arguments: `configuration/checks.py` refuses what lies outside them."""

from typing import Annotated

from pydantic import Field, Strict

Count = Annotated[int, Strict(), Field(ge=1)]
Natural = Annotated[int, Strict(), Field(ge=0)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
