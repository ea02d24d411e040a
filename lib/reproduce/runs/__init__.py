"""Training runs as data: made, stored, resumed, found again."""
