"""Log searches, read the log, and replay it: the same answers, or what has changed since."""
