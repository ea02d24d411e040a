"""Data sets, one file each; their files with checksums (known_files.py), and where they are sought (registry.py)."""
