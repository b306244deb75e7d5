"""Output layers and losses, whose scores are never all in memory."""
