"""Evaluation jobs: a model assessed on a whole data set behind the live traffic, with results that outlive the process.

    schemas.py     what is asked and answered over HTTP
    receiving.py   a body -> options, and an uploaded data set as a file
    archives.py    that file -> labelled pictures; limits before work
    state.py       the folder in which all is kept, and who may use it
    store.py       jobs in SQLite
    jobs.py        what a job is, and where it can stand
    passes.py      forward passes in turns behind the live traffic
    worker.py      the thread that runs one job at a time
    manager.py     what the routes ask for

The numbers themselves are made by `ccnet.assessment`.
"""
