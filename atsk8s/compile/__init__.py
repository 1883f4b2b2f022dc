"""The intermediate representation to bytes and back, and what changed to one commit.  Pure.

`layout` is plugin_c/blob/atsk_format.h in Python, `encode` writes it, `decode` is the slow reader for tests and dumps, `diff` knows
what is published and turns changes into the core's commit calls.
"""
