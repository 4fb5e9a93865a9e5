"""What a playbook would have done: history through the services' own hearts, and a report of what came of it.

A leaf, like the embedded house: it puts services together, and no service imports it.
"""
