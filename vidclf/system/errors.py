"""What the command line prints as a sentence instead of a stack trace."""


class VidclfError(Exception):
    """Something the user can act on: what, got, allowed, what to do."""
