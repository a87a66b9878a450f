"""The tick: the SQL of beats and of workers.

    tick, claims, queue, plan, gates, mark        from a due row to a run marked as sent
    unsent                                        the mark of what was not sent
    sweep                                         expired claims, retries and stale runs
    waits, tokens                                 due times that entries share
    complete, wake, reports                       record how runs ended, and wake downstreams
    beats, workers                                the rows of beats and of workers

`docs/architecture.md` lists the files of the first line in reading order.
"""
