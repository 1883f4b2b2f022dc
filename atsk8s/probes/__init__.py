"""Active health checks: a GET to each endpoint of the Services that ask for it, on one thread, whatever there is of them.

Its verdicts hold for a few intervals and then end by themselves: when this side of the process stands still, no endpoint stays out.
"""
