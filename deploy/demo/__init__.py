"""The `demo` verb: the classic two-namespace walk-through over a directory of manifests, with real backends."""
