"""Objects from an API server.

`credentials` says who we are, `transport` connects, `reflector` lists and watches one kind, `source` runs one of these for each.
"""
