"""Comparison with others: parity with official code, and timing against it (`timing`)."""

from .pages import page_code
from .parity import ParityCase, assert_parity, load_case, parity_cases

__all__ = ["ParityCase", "assert_parity", "load_case", "page_code", "parity_cases"]
