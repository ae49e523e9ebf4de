"""Celery on SQS without this template, with the settings in `SETTINGS` and otherwise its defaults."""

from __future__ import annotations

import json
import os

from celery import Celery

settings = json.loads(os.environ["SETTINGS"])
name = settings.pop("queue")

app = Celery("plain", include=["naps"])
app.conf.update(
    {
        "broker_url": os.environ.get("BROKER_URL", "sqs://"),
        "broker_transport_options": {
            "region": os.environ["AWS_DEFAULT_REGION"],
            "predefined_queues": {name: {"url": f"{os.environ['QUEUE_URL_BASE']}/{name}"}},
            **settings.pop("transport", {}),
        },
        "task_default_queue": name,
        "task_ignore_result": True,
        **settings,
    }
)
