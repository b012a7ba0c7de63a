"""Errors that a person can act on; the command line prints them as one sentence."""


class VidclfError(Exception):
    """A setting, a file or a machine is not as it must be. The message names it, the value, and what to do."""


class VideoError(VidclfError):
    """A file is not a video, or is damaged. The message names the file and what to do."""
