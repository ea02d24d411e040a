"""Fields, whole models around a solve, and their losses."""
