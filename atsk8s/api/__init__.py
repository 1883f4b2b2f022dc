"""Kubernetes types with only the fields in use, decoded from JSON.  "Untrusted" ends here.

`meta` has the key and metadata of every object, one module per API group has its kinds, `wire` has what a list and a watch
consist of, `decode` turns bytes into a type or into a `RejectError`, and `absent` is why no consumer has to ask for null.
Everything here is immutable once decoded and free of side effects.
"""
