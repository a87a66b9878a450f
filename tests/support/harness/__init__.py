"""Beats and workers over a database, real ones or in this process, in one vocabulary.

    play.Play           a beat without a broker and workers in a word, by a manual clock
    inprocess.running   celery's own beat of an app of this process, ticked by the test
    races.Beats         several beats without a broker, each in a thread, for races
    stage.Stage         real beats and workers of a `Project`, and runs made by hand
    scene.Scene         a stage whose messages nobody takes, and the account of them
    steady.Steady       entries of a stage that are due each second, and the reckoning of all runs
    diamond.Diamond     a stage with four levels of entries that are fed, and their reckoning

What can be said of several of them has the same name and meaning everywhere:

    store                   the database, as the test reaches it
    now()                   the database's clock
    insert(entries)         write entries by plain SQL; `add…` is by the API or counts what it adds
    tick()                  let the beat of this process look until nothing is due
    beat(), worker()        start a real one, and wait until it is at work
    start_beat(), start_worker()    start it, and wait for nothing
    runs(), run(id)         rows of runs as they are; `states()` counts them
    beats()                 the beats that were not stopped in order
    wait_…(…)               wait with a deadline; who fails says what there is to see
    close()                 give everything back
"""
