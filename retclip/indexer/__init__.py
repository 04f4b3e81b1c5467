"""Offline: pictures with labels -> stored segments. Build a database, extend it, resume what was interrupted."""
