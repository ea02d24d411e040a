"""From rows to tables, ratios, verdicts and pages (no torch, no training)."""
