"""The control API: an HTTP server on a unix socket, its client, and the readers.

Nothing is imported here: `duende ps` needs the client alone, and soon.
"""
