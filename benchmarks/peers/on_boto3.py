"""Threads that receive ten messages, do them and delete them with one request: no framework, and so what is least.

python on_boto3.py work THREADS
python on_boto3.py send COUNT SECONDS
"""

from __future__ import annotations

import json
import os
import sys
import threading

import boto3
from nap import nap, time_sending

QUEUE = f"{os.environ['QUEUE_URL_BASE']}/default"
sqs = boto3.client("sqs")


def work() -> None:
    """Do what there is, for ever."""
    while True:
        received = sqs.receive_message(QueueUrl=QUEUE, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = received.get("Messages", [])
        for message in messages:
            nap(*json.loads(message["Body"]))
        if messages:
            done = [{"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]} for at, each in enumerate(messages)]
            sqs.delete_message_batch(QueueUrl=QUEUE, Entries=done)


def send(count: int, seconds: float) -> None:
    """Send so many tasks of so many seconds, in batches of ten."""
    for first in range(0, count, 10):
        numbers = range(first, min(first + 10, count))
        entries = [{"Id": str(number), "MessageBody": json.dumps([seconds, "", number])} for number in numbers]
        sqs.send_message_batch(QueueUrl=QUEUE, Entries=entries)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        for _ in range(int(sys.argv[2])):
            threading.Thread(target=work).start()
    else:
        tasks, seconds = int(sys.argv[2]), float(sys.argv[3])
        time_sending(lambda many: send(many, seconds), tasks)
