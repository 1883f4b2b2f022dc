"""What an administrator sets for the whole proxy while it runs: ConfigMaps, to Traffic Server's records and to settings of our own.

`keys` is the one table of every key; `records` says which records may be set and what their values may be; `state` merges
ConfigMaps, sets and gives back.  Pure but for the record table that `state` is given.
"""
