"""Parity with official code: loading of recorded cases and their comparison."""

from .parity import ParityCase, assert_parity, load_case, parity_cases

__all__ = ["ParityCase", "assert_parity", "load_case", "parity_cases"]
