"""Killed at named points and at random, again and again: what is delivered is what an undisturbed run delivers.

`make test` runs a short form, `make chaos` a long one with the broker, the network and the files bridge failing, too.

    recording.py    what is played: readings of several streams, filters, garbage; endless, of a seed
    expectation.py  what must come of it, computed without the processor
    plan.py         which life of the processor ends how, and what goes wrong meanwhile; of a seed
    victim.py       the processor that kills itself at a point
    processes.py    starts and ends it
    player.py       publishes the recording in order
    faults.py       makes the broker, the network and the files bridge fail
    comparison.py   collects samples from the bridges, and compares
    trial.py        puts one disturbed processor beside an undisturbed one
    storm.py        puts trials, brokers and the player together
"""
