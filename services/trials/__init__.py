"""`rapport playbook test`: the tests of journeys, each a customer's story in a house of its own."""
