"""Optional packages, installed by an extra of vidclf."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from vidclf.errors import VidclfError

PYARROW = "17.0.0"  # the first built for NumPy 2; before 14.0.1 a file could run code (CVE-2023-47248)


def require(package: str, at_least: str, extra: str, what: str, otherwise: str = "") -> None:
    """Raise VidclfError if a package that `what` needs is not installed, or too old.

    Args:
        package: its name on PyPI.
        at_least: the oldest version that works.
        extra: of vidclf, which installs it.
        what: the start of the message.
        otherwise: the end of the message: another way.
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = None
    if installed is None or Version(installed) < Version(at_least):
        raise VidclfError(
            f"{what} needs {package} {at_least} or newer ({installed or 'not installed'}): "
            f"pip install 'vidclf[{extra}]'{otherwise}."
        )
