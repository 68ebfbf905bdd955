"""What is wrong with a running job, in words: pure functions of its facts."""
