"""Packages that are not installed with vidclf, but by one of its extras."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from vidclf.errors import VidclfError

PYARROW = "17.0.0"  # the first built for NumPy 2; before 14.0.1 a file could run code (CVE-2023-47248)


def require(package: str, at_least: str, extra: str, what: str, otherwise: str = "") -> None:
    """Raise VidclfError if a package is not installed, or an older one is: `what` needs it.

    Args:
        package: as it is called where it comes from.
        at_least: the oldest version that will do.
        extra: of vidclf, which installs it.
        what: needs it, as the message begins.
        otherwise: what else can be done, as the message ends.
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = None
    if installed is None or Version(installed) < Version(at_least):
        raise VidclfError(
            f"{what} needs {package} {at_least} or newer ({installed or 'it is not installed'}): "
            f"pip install 'vidclf[{extra}]'{otherwise}."
        )
