"""Widgets for JupyterLab: each stands alone in a cell, and each action is one public function of the package."""
