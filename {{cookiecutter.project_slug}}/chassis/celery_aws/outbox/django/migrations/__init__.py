"""The migrations of the table."""
