"""One module per queue: a task in `tasks/high.py` goes to the queue `high`."""
