"""Journeys: who is in which journey at which step, and what that asks the mailer for."""
