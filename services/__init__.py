"""Rapport's services: ingest, segmenter, journeys and mailer, and the command that runs them."""
