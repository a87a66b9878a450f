"""Regions: three beats, workers, database and broker, each in a network of its own.

    python -m tests.regions

    network     a network namespace for each of them, and the switch that connects them
    switch      the program that passes their packets on: later, not all, or none
    cluster     the servers, beats and workers of a chaos run, each in its namespace
    cuts        each two that talk to each other, cut off from each other
    figures     how late runs are, and how soon another beat takes over, by the round trip
    measure     plays what the figures are made of

What is played while they are cut off, and the rules that are checked afterwards, are those of
`tests.chaos`. Namespaces need Linux, root, and the program `ip`.
"""
