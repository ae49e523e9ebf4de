"""Django: its models in tasks, its settings, its transactions, and its own tasks (`tasks.py`, from Django 6.0 on).

Nothing else in the library imports Django.
"""

from __future__ import annotations
