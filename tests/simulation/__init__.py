"""The simulator: real beats, reports and edits under a clock and a scheduler of its own.

A plan is data, made from a seed: some entries, and some sixty steps. A step lets one process
go on to its next point (a statement, a commit, a publish, an acknowledgement), kills it there,
cuts its connection before or after the effect, moves the time, or has a user do something. So
one seed is one schedule, repeated exactly, and a failing one can be made shorter and printed.

    plan.py      what a schedule is made of, as data, and how a seed makes one
    virtual.py   the time, of the processes and of the database
    kernel.py    processes that stop at each point
    ground.py    an app, a store and empty tables, on SQLite
    servers.py   the same on PostgreSQL and MariaDB
    wire.py      the connections to SQLite
    broker.py    the broker
    sockets.py   one end of a connection to it
    lists.py     the same behind a socket, as Redis: for real kombu and real redis-py
    channels.py  the same as RabbitMQ: for real kombu and real py-amqp
    beats.py     beatstore's beat, whole
    workers.py   a worker that reports by `beatstore.tick.reports`
    users.py     people, by the API and by SQL
    play.py      one schedule, from the first step to rest
    ledger.py    what the tables say after each commit
    oracle/      what they must say, written from the docs
    many.py      many schedules, in several processes
    shrink.py    from a failing plan to the shortest
    planted/     faults to plant in beatstore, each of which must be found
    mutants.py   plants them

`python -m tests.simulation --seeds 1000` plays schedules; `make simulate` does the same.
"""
