"""A Celery service on Amazon SQS; start reading at `contract.py` and `app.py`."""
