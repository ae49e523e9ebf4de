"""A local environment for a service, without an AWS account and without Docker."""
