from conftest_mailer import post_office

__all__ = ["post_office"]
