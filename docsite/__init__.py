"""How the docs site is built: pages made from the package, notebooks made static, and a check of what came out.

``mkdocs.yml`` at the top of the checkout names ``hooks.py``; ``make docs`` builds and checks.
"""
