"""The part of plotly that is used here, for the type checker alone: plotly declares no types, and reading its sources
for them takes long and ends differently by the order of files."""
