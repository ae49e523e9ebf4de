"""Tasks of the queue that this module is named after: functions with `@app.task`, from `..celery`.

Write them to be idempotent, because a message can be delivered twice, and to end before their soft limit.
"""
