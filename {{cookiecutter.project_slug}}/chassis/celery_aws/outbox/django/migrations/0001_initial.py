"""Creates the table."""

from __future__ import annotations

from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    """The first one."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task_id", models.CharField(max_length=255, unique=True)),
                ("task", models.CharField(max_length=255)),
                ("ordering_key", models.CharField(db_index=True, max_length=255, null=True)),
                ("message", models.TextField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("available_at", models.FloatField(default=0)),
                ("claimed_by", models.CharField(max_length=36, null=True)),
                ("error", models.TextField(null=True)),
            ],
        ),
    ]
