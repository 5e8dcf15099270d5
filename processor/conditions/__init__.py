"""The conditions of a rule that remember: each decides window by window, in the order of the stream.

A condition is asked about every window that reaches it, one after another, so that it does not matter how windows are
cut into batches. What it remembers is kept in the store, in the transaction of the batch that changed it: as rows, of
which only those that changed are written.
"""
