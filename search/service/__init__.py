"""Tuning jobs over HTTP: job folders, the queue, Ray's Jobs API, and the web page."""
