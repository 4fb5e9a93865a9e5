from conftest_processing import house, kafka

__all__ = ["house", "kafka"]
