"""Where a fact lives: restoration traces and attribution."""
