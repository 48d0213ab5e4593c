"""The one exception that users are meant to read."""


class FerError(Exception):
    """Bad input or a missing file, told in one sentence that names the thing and the remedy."""


class LeakError(FerError):
    """Images or subjects of a test or validation part were found where something is trained."""
