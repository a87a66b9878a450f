"""beatstore beside other schedulers of Celery, in one run; `make bench-peers`.

Each scheduler is installed from the package index, at a pinned version, into a virtual
environment of its own, and runs as a real `celery beat`. What it sends is counted on the broker:
nothing is connected to it that could slow it down, or change the way it sends.

    peer            what a scheduler has to say for itself; one module for each of them:
                    `ours`, `django_beat`, `sqlalchemy_beat`, `redbeat_beat`, `persistent`
    environments    the virtual environments
    app, writer     run in those: the app of the beat, and the process that writes entries
    scene           a scheduler with its entries, its broker and its processes, from outside
    cells           what is measured
    results, plots  medians, ratios, tables, JSON and pictures
"""
