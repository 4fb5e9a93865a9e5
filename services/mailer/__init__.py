"""Mailer: whether a message may go, the mail that is made of it, and what became of it."""
