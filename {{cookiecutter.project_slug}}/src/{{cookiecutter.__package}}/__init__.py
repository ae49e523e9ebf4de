"""A Celery service on AWS. Its tasks are in `tasks/`, its environment variables in `settings.py`."""
