"""`rapport demo`: a fictional shop, a fast clock, and the mails that its customers get."""

from services.demo.run import run_demo

__all__ = ["run_demo"]
