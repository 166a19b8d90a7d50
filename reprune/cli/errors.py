"""Errors of the person at the command line."""


class UserError(Exception):
    """Something the user can put right; shown as one message, without a traceback."""
