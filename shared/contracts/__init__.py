"""The wire: what each stream carries, as msgspec structs with a version, a JSON Schema and examples."""
