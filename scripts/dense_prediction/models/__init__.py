"""Backbone and head together: built, saved, and what they predict."""
