"""The benchmark: `python3 build.py bench`.  See docs/benchmarks.md."""
