"""What the tests of this service share."""

pytest_plugins = ["celery_aws.testing.plugin"]
