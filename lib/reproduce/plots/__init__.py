"""Pictures: one base, one file for each family (no training)."""
