"""The fixture of all of these: each kind of delta on each shape of model."""

from __future__ import annotations

import pytest

from tests.helpers.deltas import KINDS, MODELS, Case, model_of


@pytest.fixture(params=[(m, k) for m in MODELS for k in KINDS], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param
    model = model_of(name)
    return Case(model, KINDS[kind](model, 0), KINDS[kind])
