"""``webhook explain``: the story of a payment, user or parked event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import click

from webhook.explain.escapes import printable
from webhook.explain.reply import reply
from webhook.explain.report import Report, full_answer
from webhook.explain.text import candidate_lines, story_lines, verdict_lines
from webhook.ledger.ledger import Ledger
from webhook.output import silence_notice
from webhook.settings import read_database_url, read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader


def explain(text: str, *, stripe: bool, as_json: bool = False, as_reply: bool = False) -> bool:
    """Print what is known. Returns whether something was found and nothing needs attention.

    Raises :class:`SettingsError`, :class:`LedgerUnavailableError` or :class:`StripeUnavailableError`.
    """
    reader = _reader() if stripe else None
    with closing(Ledger(read_database_url())) as ledger:
        report = full_answer(ledger, text, reader, read_event_scope().every_account if reader else ())
    if as_json:
        click.echo(report.as_json())
    elif as_reply:
        click.echo(reply(report.verdict, report.story))
    else:
        for line in _lines(report, with_searched=stripe or report.story is None):
            click.echo(line)
    return not report.verdict.needs_attention


def _reader() -> StripeReader:
    settings = read_reader_settings()
    return StripeReader(settings, silence_notice(settings))


def _lines(report: Report, *, with_searched: bool) -> Iterator[str]:
    yield from verdict_lines(report.verdict)
    if report.story:
        yield from story_lines(report.story)
    if table := candidate_lines(report.candidates):
        yield from ("", "results", *(f"  {line}" for line in table))
    if report.searched and with_searched:
        yield from ("", "searched", *(f"  {printable(each)}" for each in report.searched))
    if report.dashboard:
        yield from ("", f"Search the Dashboard: {report.dashboard}")
