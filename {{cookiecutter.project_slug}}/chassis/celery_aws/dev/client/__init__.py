"""Builds the client of the service: a wheel for producers, with a typed function for each task."""
