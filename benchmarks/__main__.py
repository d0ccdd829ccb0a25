"""``python -m benchmarks``: everything that the README quotes. Tables go to the terminal, numbers to ``out/bench/``."""

from __future__ import annotations

from benchmarks import edit_quality, quickstart

if __name__ == "__main__":
    quickstart.main()
    edit_quality.main()
