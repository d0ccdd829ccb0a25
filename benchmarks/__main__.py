"""``python -m benchmarks``: everything that the README quotes. Tables go to the terminal, numbers to ``out/bench/``."""

from __future__ import annotations

from benchmarks import edit_quality, quickstart, speed_fit

if __name__ == "__main__":
    quickstart.main()
    speed_fit.main()
    edit_quality.main()
