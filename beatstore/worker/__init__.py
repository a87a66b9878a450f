"""Celery's workers: what happened to runs, reported from the signals that celery sends."""
