"""The parameters of a header value: `; name=token` and `; name="quoted"`, and nothing between."""

import re

# RFC 9110, section 5.6.6, and the boundary characters that clients forget to quote.
_PARAMETER = re.compile(r';[ \t]*+([^\s=;"]+)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^\s;"]*+)[ \t]*+')
_END = re.compile(r";?[ \t]*+")


def parameters(header: str) -> list[tuple[str, str]]:
    """Return the parameters in their order, names in lower case, quoted values with their quotes.

    Raises:
        ValueError: something stands there that one reader would skip and another would take.

    """
    found = []
    at = len(header.partition(";")[0])
    while match := _PARAMETER.match(header, at):
        found.append((match[1].lower(), match[2]))
        at = match.end()
    if not _END.fullmatch(header, at):
        raise ValueError("the parameters cannot be told apart")
    return found
