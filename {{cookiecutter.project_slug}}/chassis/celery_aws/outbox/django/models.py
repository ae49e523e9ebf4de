"""The table of the outbox."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxMessage(models.Model):  # type: ignore[misc]
    """A message that waits to be sent, or that can never be sent."""

    id = models.BigAutoField(primary_key=True)
    task_id = models.CharField(max_length=255, unique=True)
    task = models.CharField(max_length=255)
    ordering_key = models.CharField(max_length=255, null=True, db_index=True)
    message = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    available_at = models.FloatField(default=0)
    claimed_by = models.CharField(max_length=36, null=True)
    error = models.TextField(null=True)

    def __str__(self) -> str:
        return f"{self.task}[{self.task_id}]"
