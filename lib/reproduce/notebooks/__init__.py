"""The lessons: executed headless, kept while nothing changed, checked against their contract."""
