"""Vector code: whole vectors, traced formulas, elementary functions, denormal numbers."""
