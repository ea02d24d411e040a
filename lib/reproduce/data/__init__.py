"""Data sets: one file each, and one registry of files and checksums (registry.py)."""
