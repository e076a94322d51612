"""Measurements of the platform against its goals: `python -m bench` boots a stack of its own and prints one table.

`scenarios/` holds what is measured, one function a name. Each gets a `Bench`, from which it borrows a running platform
with the settings that it wants, and returns `Figure`s. The rest are the parts that they share:

    figures   samples, their statistics, goals and verdicts     table    the table and its JSON
    stack     servers and processes in a temporary folder       client   one client that notes when it hears what
    bare      the engine without the platform, in a process     load     many clients that cost little
"""
