"""`rapport playbook preview`: a message as a customer would read it, before anybody does."""
