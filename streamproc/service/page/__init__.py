"""The web page of the service: made on the server, usable without script, by keyboard and by screen readers."""
