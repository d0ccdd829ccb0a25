"""Loading shows no bars, and what was set before is set again."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from tests.helpers.tiny import tiny_llama
from workbench.models.quiet import no_loading_bars


def test_bars_come_back_also_after_an_error() -> None:
    def load() -> None:
        assert not logging.is_progress_bar_enabled()
        raise ValueError("damaged")

    assert logging.is_progress_bar_enabled()
    with pytest.raises(ValueError, match="damaged"), no_loading_bars():
        load()
    assert logging.is_progress_bar_enabled()


def test_who_wants_none_gets_none_afterwards() -> None:
    logging.disable_progress_bar()
    try:
        with no_loading_bars():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_a_model_of_this_machine_is_loaded_without_a_bar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_llama().save_pretrained(tmp_path)
    capfd.readouterr()
    AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert "Loading weights" in capfd.readouterr().err, "there is nothing to hide"
    with no_loading_bars():
        AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert capfd.readouterr().err == ""
