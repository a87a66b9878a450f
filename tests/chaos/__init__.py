"""Chaos: real beats and workers, everything that can happen to them, and a checker.

    python -m tests.chaos --minutes 10 --database mariadb --seed 7

    world       the entries
    app         the tasks; each writes down what it does, which is the checker's witness
    cluster     the servers, two beats and two workers
    faults      what happens to them
    user        what somebody does to the entries meanwhile
    ledger      what is known at the end: rows, witness, acts and events
    checker     the rules of docs/, applied to a ledger

The checker knows the documented columns and the documentation, and shares no code with
beatstore: what it expects it works out by itself.
"""
