"""What the services share: the wire, the playbook language and the mechanics of processing."""
