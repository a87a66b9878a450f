"""The tick, its half of the SQL, and the workers'.

    tick, claims, queue, plan, gates, settling    from a due row to a run marked as sent
    sweep                                         runs that nobody looks after
    waits, tokens                                 due times that entries share
    complete, wake, reports                       how runs ended, and who waited for that
    beats, workers                                the rows of beats and of workers

`docs/architecture.md` names the files of the first line in the order in which to read them.
"""
