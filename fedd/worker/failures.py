"""What a plugin raised, as an error that can be told."""

from __future__ import annotations

from fedd.api.errors import PluginFailed


def plugin_failure(error: BaseException) -> PluginFailed:
    """What a plugin raised, as one line: the exception and the last line of code it passed."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    at = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if (
            not code.co_filename.startswith("<")
            and trace.tb_frame.f_globals.get("__package__") != __package__
        ):
            at = f"in {code.co_name}, {code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return PluginFailed(text[:1000], hint=at[:1000])
