"""What the on-call commands share."""
