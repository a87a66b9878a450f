"""Discovery: find the entries that code declares, and convert celery's own forms."""
