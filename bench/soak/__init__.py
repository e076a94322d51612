"""Run a steady mixed load for a given time, and detect whether anything grows that should not: `python -m bench.soak`.

accounts   accounts and their connections       operations  kinds of requests, each with its check
open_loop  starts operations at a steady rate   monitor     reads processes and servers each second
series     what is monitored, and its rules     verdict     robust trends compared with tolerances
retention  what remains after the pruning       picture     all series on one page
report     the lines for people, and the JSON   __main__    the command
"""
