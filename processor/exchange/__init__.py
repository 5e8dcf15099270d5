"""Another model while we run: loaded and looked at beside the one in force, and put in its place between two batches.

`document` reads what an operator wants, `control` decides what is `in_force` and what is answered, `loader` is the
thread that loads, `recent` has the windows that a model is tried on, `exchange` is all of it as the pipeline thread
sees it, and `beginning` is what is in force when the process starts.
"""
