"""Included by the workers of test_deployment.py: protection after a second instead of a minute or more."""

from celery_aws.compute import ecs

ecs.CHECK_EVERY_SECONDS = 0.2
ecs.PROTECT_AFTER_SECONDS = 1
ecs.RETRY_SECONDS = 1
