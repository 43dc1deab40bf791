"""Tuning jobs over HTTP: their folders, their queue, Ray's Jobs API, the page."""
