"""All services' hearts in memory on virtual time: what a playbook would do, without a database, a log or a mail."""
