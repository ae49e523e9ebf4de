"""A Celery service on AWS; start reading at `contract.py` and `app.py`."""
