"""What is routed where: pure functions from objects to immutable values, and the index of what depends on what.

`ir` is what comes out.  One producer (`ingress`) turns an object into claims, `assemble` turns the claims on one host into one
virtual host and one TLS policy, `services` and `certificates` resolve what those name, and `state` knows what a changed object
touches.  No I/O, clock, randomness, logging or global state: time is an argument.
"""
