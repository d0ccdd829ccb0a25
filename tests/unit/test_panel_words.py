"""Words that several panels share: a swap's subject and places, and what the lens says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.helpers.panels import FACTS, FRANCE, SPAIN, tiny
from workbench.language.prompts import traced_prompt
from workbench.widgets.facts.form import FactForm
from workbench.widgets.facts.partner import partner_fact
from workbench.widgets.picker.captions import headline
from workbench.widgets.picker.maps import Sources
from workbench.widgets.shared.lens_words import settled
from workbench.widgets.shared.measure import Measure
from workbench.widgets.shared.partner_words import everywhere, partner_subject, places


def test_whose_subject_was_swapped_in() -> None:
    prompt = traced_prompt(tiny(), FRANCE, form="cloze")
    assert partner_subject(prompt, None, FACTS) == ""
    swapped = replace(prompt, partner=SPAIN.id)
    assert partner_subject(swapped, None, FACTS) == "Spain"
    own = partner_fact(FRANCE, "Atlantis", "Poseidonis")
    assert partner_subject(replace(prompt, partner=own.id), own, FACTS) == "Atlantis"
    assert partner_subject(replace(prompt, partner="gone"), None, FACTS) == "gone"


@pytest.mark.parametrize(("subject", "n"), [((), 0), ((3,), 1), ((3, 4), 1), ((3, 4, 9), 2), ((0, 2, 3, 8), 3)])
def test_at_how_many_places_a_subject_stands(subject: tuple[int, ...], n: int) -> None:
    prompt = replace(traced_prompt(tiny(), FRANCE, form="cloze"), subject=subject)
    assert places(prompt) == n
    assert everywhere(prompt) == (f", at all {n} places where it stands" if n > 1 else "")


def test_a_swap_at_every_place_is_said_where_it_is_chosen() -> None:
    sources = Sources(tiny(), (FRANCE,), Measure("logit_diff", "swap"), "cloze", FACTS)
    effect = sources.compute("heads")
    (prompt,) = effect.prompts
    once = headline(sources.with_partner_of(effect), {"heads": effect})
    assert re.search(r"; swap with \w+$", once) and places(prompt) == 1
    effect = replace(effect, prompts=(replace(prompt, subject=(prompt.subject[0] - 2, *prompt.subject)),))
    twice = headline(sources.with_partner_of(effect), {"heads": effect})
    assert twice == f"{once}, at all 2 places where it stands"
    form = FactForm((), lambda: None, lambda: None)
    assert "every place" in form.fields["swap"].tooltip


def test_one_sentence_says_from_where_on_a_token_is_the_likeliest() -> None:
    assert settled(" Paris", "L24", 0) == "·Paris is the likeliest token at the end from L24 on."
    assert settled(" Paris", None, 1234) == "·Paris is not the likeliest token at the end (rank 1,235)."
