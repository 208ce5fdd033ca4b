"""Doctor."""


def diagnose() -> None:
    """x"""
