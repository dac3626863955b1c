"""Reports of a run: terminal, JSON record, HTML page."""
