"""What beatstore costs, measured against real servers; `python -m benchmarks --help`.

    idle         a tick with nothing due, the start of a beat, its memory, by stored entries
    throughput   messages per second of a burst, against a bare `apply_async` loop
    costs        where the time of a message goes
    lateness     how late the runs of a steady load are
    changes      from another process's commit to the message
    scaling      several beats on one database
    readers      what a person with the dashboard open costs a beat and workers

`peers` measures beatstore beside other schedulers, `check` compares ratios with recorded ones, and
`figures` writes what was measured into docs/.

Nothing here is a test: a slow machine fails no benchmark, but a target that is missed
says so. What is promised without a stopwatch is tested, in
`tests/integration/test_plans.py`.
"""
