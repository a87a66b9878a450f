"""Celery's beat: the scheduler it loads, what sends, and what one beat does beside its ticks."""
