"""A light stand-in for SQS: in memory, and every request takes as long as one to AWS, give or take.

moto answers one request after the other with tens of milliseconds of CPU time each, which would hide all that a worker
does well or badly. This answers any number side by side, each 5 ms late, and really waits the time of a long poll. It
counts the requests. It knows only what workers and senders ask for; nothing comes back by itself unless there is a
visibility timeout, of so many seconds.

    python light_sqs.py 0    # prints its URL, answers GET with the counts, ends with its standard input
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
import uuid
from collections import Counter
from typing import Any

ACCOUNT = "123456789012"
LATENCY_SECONDS = 0.005
"""About what AWS takes. Of 1, 5 and 15 ms, 5 is where plain Celery with its defaults fared best."""


class Queue:
    """One queue; on FIFO queues, nothing of a group is handed out while something of it is in flight."""

    def __init__(self, ordered: bool, visibility_timeout_seconds: float) -> None:
        self.ordered = ordered
        self.visibility_timeout_seconds = visibility_timeout_seconds
        self.waiting: list[dict[str, Any]] = []
        self.in_flight: dict[str, dict[str, Any]] = {}
        self.changed = asyncio.Event()

    def notify(self) -> None:
        """Wake long polls up."""
        self.changed.set()
        self.changed = asyncio.Event()

    def put(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Take a message; return what its sender is told."""
        md5 = hashlib.md5(entry["MessageBody"].encode(), usedforsecurity=False).hexdigest()
        told = {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": md5}
        self.waiting.append({**told, "Body": entry["MessageBody"], "group": entry.get("MessageGroupId")})
        self.notify()
        return told

    def take(self, most: int) -> list[dict[str, Any]]:
        """Hand messages out."""
        locked = {message["group"] for message in self.in_flight.values()} if self.ordered else ()
        taken: list[dict[str, Any]] = []
        for message in self.waiting:
            if len(taken) == most:
                break
            if message["group"] not in locked:
                taken.append(message)
        for message in taken:
            self.waiting.remove(message)
            self.in_flight[message["MessageId"]] = message
            message["received"] = message.get("received", 0) + 1
            self.hide(message, self.visibility_timeout_seconds)
        return [
            {
                "MessageId": message["MessageId"],
                "ReceiptHandle": message["MessageId"],
                "MD5OfBody": message["MD5OfMessageBody"],
                "Body": message["Body"],
                "Attributes": {"ApproximateReceiveCount": str(message["received"])},
            }
            for message in taken
        ]

    def delete(self, handle: str) -> None:
        """Forget a message that was handed out."""
        self.in_flight.pop(handle, None)
        self.notify()

    def change(self, handle: str, seconds: float) -> None:
        """Start a message's visibility timeout anew, or put it back at once."""
        message = self.in_flight.get(handle)
        if message is None:
            return
        if seconds == 0:
            self.put_back(message)
        else:
            self.hide(message, seconds)

    def hide(self, message: dict[str, Any], seconds: float) -> None:
        """Have a message come back after so many seconds, if messages come back by themselves at all."""
        if timer := message.pop("timer", None):
            timer.cancel()
        if self.visibility_timeout_seconds:
            message["timer"] = asyncio.get_running_loop().call_later(seconds, self.put_back, message)

    def put_back(self, message: dict[str, Any]) -> None:
        """Let others have a message that was handed out, unless it is done."""
        if self.in_flight.pop(message["MessageId"], None):
            self.waiting.insert(0, message)
            self.notify()


class Server:
    """Speaks the JSON protocol of SQS."""

    def __init__(self, visibility_timeout_seconds: float) -> None:
        self.visibility_timeout_seconds = visibility_timeout_seconds
        self.queues: dict[str, Queue] = {}
        self.counts: Counter[str] = Counter()
        self.last = 0.0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if head[0].startswith("GET"):
                    answer = self.report()
                else:
                    action, asked = headers["x-amz-target"].partition(".")[2], json.loads(body)
                    if action == "GetQueueUrl":
                        asked["QueueUrl"] = f"http://{headers['host']}/{ACCOUNT}/{asked['QueueName']}"
                    answer = await self.answer(action, asked, reader)
                content = json.dumps(answer).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def report(self) -> dict[str, Any]:
        """Tell what was asked so far and when last, and how many messages are left."""
        left = sum(len(queue.waiting) + len(queue.in_flight) for queue in self.queues.values())
        return {"requests": dict(self.counts), "at": self.last, "left": left}

    async def answer(self, action: str, asked: dict[str, Any], asker: asyncio.StreamReader) -> dict[str, Any]:
        """Do what is asked."""
        self.counts[action] += 1
        self.last = time.monotonic()
        await asyncio.sleep(LATENCY_SECONDS)
        url = asked["QueueUrl"]
        queue = self.queues.setdefault(url, Queue(url.endswith(".fifo"), self.visibility_timeout_seconds))
        entries = asked.get("Entries", [])
        if action == "SendMessage":
            return queue.put(asked)
        if action == "SendMessageBatch":
            return {"Successful": [{"Id": entry["Id"], **queue.put(entry)} for entry in entries]}
        if action == "ReceiveMessage":
            return {"Messages": await self.receive(queue, asked, asker)}
        if action in ("DeleteMessage", "DeleteMessageBatch"):
            for entry in entries or [asked]:
                queue.delete(entry["ReceiptHandle"])
        elif action in ("ChangeMessageVisibility", "ChangeMessageVisibilityBatch"):
            for entry in entries or [asked]:
                queue.change(entry["ReceiptHandle"], entry["VisibilityTimeout"])
        elif action == "GetQueueUrl":
            return {"QueueUrl": url}
        elif action == "GetQueueAttributes":
            return {"Attributes": {"ApproximateNumberOfMessages": str(len(queue.waiting))}}
        else:
            raise NotImplementedError(action)
        return {"Successful": [{"Id": entry["Id"]} for entry in entries]} if entries else {}

    async def receive(self, queue: Queue, asked: dict[str, Any], asker: asyncio.StreamReader) -> list[dict[str, Any]]:
        """Wait for messages as long as the poll says; who has gone meanwhile gets none."""
        until = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        while not (taken := [] if asker.at_eof() else queue.take(asked.get("MaxNumberOfMessages", 1))):
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                await asyncio.wait_for(queue.changed.wait(), left)
            except asyncio.TimeoutError:
                break
        return taken


async def main() -> None:
    """Serve until standard input ends."""
    server = await asyncio.start_server(Server(float(sys.argv[1])).connected, "127.0.0.1", 0, limit=2**21)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
