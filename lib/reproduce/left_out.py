"""What is left out of all processes: a package that jsonschema (and so nbformat and papermill) imports if it is there.

It builds a grammar when it is imported, which takes seconds of each process that reads a notebook or checks a record,
to know a format (`iri`) that neither has. jsonschema does without it where it is missing.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: importing it is an ImportError
