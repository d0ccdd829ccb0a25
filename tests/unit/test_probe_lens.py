"""Through which lens the lens probe reads: the one that is closer as measured, the same for all it is compared with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from workbench.facts.ordinary_texts import TextGroup
from workbench.models.load import LoadedModel
from workbench.probing import lens_choice
from workbench.probing.outcome import joined
from workbench.tracing.lens_fit import LensFit
from workbench.types import LensChoice, NullSize, ProbeReport, TunedLens
from workbench.widgets.probe.pace import Pace

FRANCE = capitals()[0]
OLD = Path(__file__).parents[1] / "data" / "version_5" / "probes.json"


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    tiny().cache.clear()
    yield
    tiny().cache.clear()


def an_edit() -> Any:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1), fact=FRANCE)


def run(**options: Any) -> ProbeReport:
    given: dict[str, Any] = {"probes": "lens", "pool": capitals(), "max_new_tokens": 2, "progress": False}
    return wb.probe(tiny(), an_edit(), **{**given, **options})


def a_lens() -> TunedLens:
    return wb.tuned_lens(tiny(), pool=capitals(), progress=False)


def judged(monkeypatch: pytest.MonkeyPatch, kl: float, logit_kl: float) -> TunedLens:
    """The tuned lens as if it had been measured like this in every row but the last."""
    rows = tiny().shape.n_layers
    lens = replace(a_lens(), kl=(*[kl] * rows, 0.0), logit_kl=(*[logit_kl] * rows, 0.0))
    monkeypatch.setattr(lens_choice, "tuned_lens", lambda *_, **__: lens)
    return lens


@pytest.mark.parametrize(("kl", "logit_kl", "kind"), [(1.0, 2.5, "tuned"), (2.5, 1.0, "logit"), (1.0, 1.0, "logit")])
def test_auto_takes_the_lens_that_is_closer_as_measured(
    monkeypatch: pytest.MonkeyPatch, kl: float, logit_kl: float, kind: str
) -> None:
    lens = judged(monkeypatch, kl, logit_kl)
    report = run()
    choice = report.lens_choice
    assert choice is not None and (choice.asked, choice.kind) == ("auto", kind)
    assert (choice.mean_kl, choice.mean_logit_kl, choice.held_out) == (kl, logit_kl, lens.held_out)
    assert {x.kind for x in report.lenses} == {kind} and len(report.lenses) == 6
    told = report.findings[0]
    assert f"read through the {kind} lens, the closer one" in told and told.kind == "lens" and not told.stage
    assert f"tuned lens is {kl:.2f} nats from the unedited model's prediction, the logit lens {logit_kl:.2f}" in told
    for reading in report.lenses:
        through = lens if kind == "tuned" else "logit"
        fact = capitals()[reading.prompt.fact_id]
        if reading.stage == "base":
            alone = wb.lens(tiny(), fact, kind=through)
        else:
            with wb.applied(tiny(), an_edit(), reading.stage) as edited:
                alone = wb.lens(edited, fact, kind=through)
        assert reading.probabilities["old"] == alone.probabilities["old"]
    about = [f for f in report.findings if f.kind == "lens" and f.stage]
    assert len(about) == 6 and all(f.startswith("tuned lens, ") == (kind == "tuned") for f in about)


def test_both_lenses_are_measured_and_differ_where_it_matters() -> None:
    """The measurement is the lens's own, and what is read differs, so that the choice is not idle."""
    tuned, logit = run(), run(lens="logit")
    lens = a_lens()
    assert tuned.lens_choice == LensChoice(
        asked="auto", kind="tuned", kl=lens.kl, logit_kl=lens.logit_kl, held_out=lens.held_out
    )
    assert lens.mean_kl < lens.mean_logit_kl
    assert tuned.lens().probabilities["old"][:-1] != logit.lens().probabilities["old"][:-1]
    assert tuned.lens().probabilities["old"][-1] == pytest.approx(logit.lens().probabilities["old"][-1], abs=1e-6)


def test_the_null_reads_through_the_same_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untouched facts and invented subjects: a lens of their own would make any percentile."""
    through: list[Any] = []
    before = lens_choice.tuned_lens
    from workbench.probing import lens as lens_probe

    plain = lens_probe.lens_at
    monkeypatch.setattr(lens_probe, "lens_at", lambda *a, **k: through.append(k["through"]) or plain(*a, **k))
    fits: list[int] = []
    monkeypatch.setattr(lens_choice, "tuned_lens", lambda *a, **k: fits.append(1) or before(*a, **k))
    size = NullSize(controls=1, permuted=1, never_known=1)
    report = run(null=size, stages="learn")
    assert report.null is not None and len(report.null.probes["lens"].draws) == 3
    assert len(fits) == 1, "chosen once"
    assert len(through) == 4 + 4 * 2 and {id(one) for one in through} == {id(a_lens())}
    for draw in report.null.probes["lens"].of("controls"):
        with wb.applied(tiny(), an_edit()) as edited:
            fact = capitals()[draw.name]
            assert draw.value == pytest.approx(wb.lens(edited, fact, kind=a_lens()).latent("old"), abs=1e-9)
            assert draw.value != pytest.approx(wb.lens(edited, fact).latent("old"), abs=1e-9)


def test_logit_fits_nothing_and_says_that_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_choice, "tuned_lens", None)
    report = run(lens="logit")
    choice = report.lens_choice
    assert choice == LensChoice(asked="logit", why=lens_choice.NOT_ASKED)
    assert choice is not None and "was not measured" in choice.words and choice.mean_kl is None
    assert all(f.startswith("lens, ") for f in report.findings if f.kind == "lens")


def test_tuned_is_read_though_the_logit_lens_is_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 3.0, 2.0)
    choice = run(lens="tuned").lens_choice
    assert choice is not None and choice.kind == "tuned"
    assert choice.words.startswith("read through the tuned lens, as asked: ") and "3.00 nats" in choice.words


def test_where_no_lens_can_be_fitted_the_logit_lens_is_read_and_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tuple(tiny().token_ids("The capital of France is Paris."))
    few = [TextGroup((ids,), 1)]
    monkeypatch.setattr("workbench.tracing.tuned_lens.default_texts", lambda *_, **__: few)
    report = run()
    assert report.lens_choice is not None and report.lens_choice.kind == "logit"
    assert report.lens_choice.kl is None and report.lens_choice.logit_kl is None
    told = report.findings[0]
    assert told.startswith("lens: read through the logit lens; no tuned lens could be fitted: A lens is judged on")
    assert "texts has 1 distinct text" in told and len(report.lenses) == 6
    refused = run(lens="tuned")
    assert refused.lenses == () and refused.lens_choice is None and refused.probes == ()
    assert "no tuned lens could be fitted: A lens is judged on" in refused.skipped["lens"]


def test_it_is_fitted_with_a_bar_once_and_read_from_the_cache_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fits: list[int] = []
    plain = LensFit.fitted
    monkeypatch.setattr(LensFit, "fitted", lambda *a, **k: fits.append(1) or plain(*a, **k))
    run(progress=True)
    assert "Fitting the tuned lens" in capsys.readouterr().err
    tiny().cache.clear()  # another session
    run(progress=False)
    assert capsys.readouterr().err == "" and len(fits) == 1
    run(pool=capitals().filter(lambda f: f.role != "retain"), lens="logit")
    assert len(fits) == 1


def test_cancelled_while_it_is_fitted_the_report_is_partial() -> None:
    class AtTheFit:
        def __init__(self) -> None:
            self.fitting = False

        def is_set(self) -> bool:
            return self.fitting

    flag = AtTheFit()
    report = run(cancel=flag, on_probe=lambda _: setattr(flag, "fitting", True))
    assert report.partial == "cancelled during lens" and report.lenses == () and report.lens_choice is None


def test_unknown_lenses_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lens must be one of \('auto', 'logit', 'tuned'\), got 'jacobian'"):
        run(lens=mistyped("jacobian"))
    with pytest.raises(ValueError, match="got 'jacobian'"):
        wb.ProbePanel(tiny(), an_edit(), lens=mistyped("jacobian"))


def test_reports_keep_their_choice_and_those_before_it_are_of_the_logit_lens(tmp_path: Path) -> None:
    report = run()
    again = ProbeReport.load(report.save(tmp_path / "probes.json"))
    assert again.lens_choice == report.lens_choice is not None
    assert {x.kind for x in again.lenses} == {"tuned"}
    old = ProbeReport.load(OLD)
    assert old.lens_choice == LensChoice() and {x.kind for x in old.lenses} == {"logit"}
    assert (
        old.lens_choice is not None
        and old.lens_choice.words == "read through the logit lens; how close it is was not measured"
    )
    assert old.lens().verdict == "the old answer leads at the end, from L2 on"
    assert old.findings[0].startswith("lens, base: "), "its findings are as they were"
    assert ProbeReport.load(old.save(tmp_path / "old.json")).lens_choice == LensChoice()
    without = ProbeReport.load(run(probes="strength").save(tmp_path / "none.json"))
    assert without.lens_choice is None


def test_joined_reports_keep_the_choice_of_the_readings_that_stay() -> None:
    first, second = run(), run(probes="strength")
    assert joined(first, second).lens_choice == joined(second, first).lens_choice == first.lens_choice
    later = run(lens="logit")
    both = joined(first, later)
    assert both.lens_choice == later.lens_choice and {x.kind for x in both.lenses} == {"logit"}


def test_figures_and_pages_name_the_tuned_lens(tmp_path: Path) -> None:
    report = run()
    assert "tuned" in report.plot("lens").to_json() and "tuned" not in run(lens="logit").plot("lens").to_json()
    page = report.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "read through the tuned lens, the closer one" in page


def test_the_panel_says_what_comes_first_gives_the_option_on_and_shows_the_choice() -> None:
    view = wb.ProbePanel(tiny(), an_edit(), pool=capitals(), max_new_tokens=2, probes=("lens", "context"))
    assert "fitting the tuned lens first (minutes, once a model)" in view._estimate()
    view.probes = ("context",)
    assert "fitting" not in view._estimate()
    view.probes = ("lens",)
    assert "lens=" not in view.shown_code
    report = view.run().wait(60)
    assert report.lens_choice is not None and report.lens_choice.kind == "tuned"
    assert "fitting" not in view._estimate(), "it is there now"
    view.read("lens")
    shown = "".join(w.value for w in (view._reader._found, view._verdict))
    assert "read through the tuned lens, the closer one" in shown
    plain = wb.ProbePanel(tiny(), an_edit(), pool=capitals(), lens="logit", probes=("lens",))
    assert plain.shown_code.endswith(", lens='logit')\n") and "fitting" not in plain._estimate()
    plain.show(report)
    assert "lens=" not in plain.shown_code


def test_a_prompt_is_read_through_the_lens_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    view = wb.ProbePanel(tiny(), an_edit(), pool=capitals(), max_new_tokens=2, probes=("lens", "context"))
    view.run().wait(60)
    view.read("context")
    job = view.look()
    assert job is not None and {x.kind for x in job.wait(60)} == {"tuned"}
    assert "Layer by layer, tuned lens: " in view._reader._layers.value
    assert "kind=wb.tuned_lens(model, pool=pool)" in view._reader.code
    names: dict[str, Any] = {"wb": wb, "model": tiny(), "edit": an_edit(), "pool": capitals(), "facts": capitals()}
    exec(view._reader.code, names)
    assert [x.probabilities for x in names["readings"]] == [x.probabilities for x in job.result or ()]


def test_the_fit_is_no_measure_of_how_fast_answers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("workbench.widgets.probe.pace.time.perf_counter", lambda: now[0])
    pace, edit = Pace(tiny()), an_edit()
    before = pace.seconds
    for apart, expected in ((("lens",), before), ((), 100.0)):
        pace.start(("lens",), edit, apart=apart)
        pace.begin("lens")
        now[0] += 600.0
        pace.end(("lens",))
        assert pace.seconds == pytest.approx(expected)


def test_a_flag_that_is_set_is_no_refusal() -> None:
    """Cancelled is no ValueError: auto must not go on with the logit lens."""
    flag = threading.Event()
    flag.set()
    with pytest.raises(wb.types.cancelling.Cancelled):
        lens_choice.choose_lens(tiny(), "auto", pool=capitals(), progress=False, cancel=flag)
