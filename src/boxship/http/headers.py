"""Reading header fields that anybody may have written."""

NUMBER_DIGITS = 18
"""What is longer is no size, offset or time of anything; it also keeps numbers within 64 bits."""


def number(text: str) -> int:
    """A whole number (RFC 9110: 1*DIGIT), -1 for anything else: a sign, a superscript, a thousand digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS else -1
