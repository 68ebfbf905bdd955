"""User code: how it is loaded, and the operators that call it."""
