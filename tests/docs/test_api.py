"""Every public name is on a page of the API reference, or the build ends."""

from __future__ import annotations

import pytest

import workbench as wb
from docsite import api


def test_every_public_name_is_on_one_page() -> None:
    listed = [one.path for page in api.entries().values() for one in page]
    assert len(listed) == len(set(listed))
    homes = {api.canonical(path) for path in listed}
    assert {api.canonical(path) for path in api.public_paths()} <= homes
    assert {f"workbench.{name}" for name in wb.__all__} <= set(listed)


def test_the_pages_are_those_of_the_folders() -> None:
    found = api.pages()
    assert "reference/api/tracing.md" in found
    assert "::: workbench.causal_trace\n" in found["reference/api/tracing.md"]
    assert "::: workbench.recipes.LoRA\n" in found["reference/api/editing.md"]
    assert "::: workbench.types.GateDelta\n" in found["reference/api/types.md"]
    assert "(tracing.md#workbench.causal_trace)" in found["reference/api/index.md"]


def test_types_that_a_signature_mentions_are_on_a_page() -> None:
    listed = {one.path for page in api.entries().values() for one in page}
    assert "workbench.tracing.metric.Metric" in listed
    assert not [path for path in listed if path.rpartition(".")[2].startswith("_")]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("workbench.nothing", "workbench.nothing is public and is nowhere in the package"),
        ("workbench.demo.run_demo", "workbench.demo.run_demo lies in workbench/demo, which has no page"),
        ("workbench.types.edit._stage", "workbench.types.edit._stage is public and is nowhere"),
    ],
)
def test_a_public_name_that_cannot_be_documented_ends_the_build(path: str, words: str) -> None:
    with pytest.raises(api.MissingName, match=words):
        api.pages([path])


def test_a_public_name_without_a_docstring_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = api.package()["editing.rewrite.rewrite"]
    monkeypatch.setattr(thing, "docstring", None)
    with pytest.raises(api.MissingName, match=r"workbench\.rewrite is public and has no docstring.*rewrite\.py"):
        api.pages(["workbench.rewrite"])
