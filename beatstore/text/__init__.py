"""Values as people read them: instants, spans, JSON, and texts without secrets.

The command line and the dashboard show the same forms.
"""
