"""Tests of user code: process functions with `ProcessHarness`, functions of `python` steps with `PythonHarness`.

They run the operators that a pipeline runs, on state in memory, with time and crashes under the test's control.
"""

from streamproc.testing.harness import ProcessHarness, PythonHarness

__all__ = ["ProcessHarness", "PythonHarness"]
