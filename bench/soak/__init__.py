"""A steady mixed load for a given time, and whether anything grows that should not: `python -m bench.soak`.

people    accounts and their connections          works     the kinds of work, each checked
pace      the open loop that begins them          watch     what is read from processes and servers, each second
verdict   robust trends against tolerances        retention what the nightly pruning leaves after a long time
series    what is watched, and what it may do     picture   all of it on one page
report    the lines that people read, and JSON    __main__  the command
"""
