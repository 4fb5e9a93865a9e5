from conftest_processing import house

__all__ = ["house"]
