"""``boxship-runc``: the OCI runtime command line, compatible with runc.

A thin layer over ``boxship.libcontainer``: ``options`` declares the flags, ``commands`` has one module a verb,
``report`` writes errors as callers of runc read them.
Start-up time is a budget: nothing here imports argparse, json, re, enum, typing, signal or socket.
"""
