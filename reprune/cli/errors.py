"""Define the error for mistakes at the command line."""


class UserError(Exception):
    """A mistake that the user can correct; shown as one message, without a traceback."""
