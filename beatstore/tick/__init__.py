"""The tick, its half of the SQL, and the workers'.

From a due row to a run that is marked as sent, in the order in which to read it:

    beat/scheduler      what celery calls, and when to call again
    tick/tick           look, claim, send, mark
    tick/claims         what passes between these: looks, claims, outcomes
    tick/queue          the transactions of look, claim and mark
    tick/plan           due entries become runs, in one transaction
    rules/decide        the rule: what a due entry gets (rules/decision: as values)
    beat/sender         claims become messages, in attempts
    beat/message        one message, and what became of it
    beat/batches        how a batch is written to a broker (beat/confirms: to RabbitMQ)
    tick/settling       outcomes are written to the runs

The rest of the room: tick/sweep finds runs that nobody looks after. tick/gates reads what an
entry waits for (rules/gate decides), and tick/waits keeps due times that entries share.
tick/complete records how runs ended, for tick/reports of the workers and for the tick.
tick/beats is the upkeep of a beat.
"""
