"""What holds in every service: contract, code, queues and Terraform agree. The chassis brings these tests."""

from celery_aws.testing.conformance import *  # noqa: F403
