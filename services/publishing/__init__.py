"""Putting playbooks in force: what would change, what has, and what becomes of those who are inside."""
