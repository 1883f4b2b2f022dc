"""The tests of atsk8s; kinds are folders (CONTRIBUTING.md), `python3 build.py test` runs them."""
