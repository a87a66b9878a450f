"""Entries that code declares: found, imported, and translated from celery's own forms."""
