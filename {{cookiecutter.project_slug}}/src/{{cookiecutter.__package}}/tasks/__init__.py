"""One module per queue: a task in `<queue>.py` goes to that queue. A dash in its name is an underscore here."""
