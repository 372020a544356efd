"""What ``webhook dev --listen`` prints of the Stripe CLI's output. The lines are those of version 1.52."""

from __future__ import annotations

import pytest

from webhook.dev.stripe_cli import StripeCli, cause_in, readable

REFUSED = """Authorization failed, status=403, body={
  "error": {
    "message": "The key 'rk_test_1' lacks \\"Sessions Write\\".",
    "type": "invalid_request_error"
  }
}"""
NO_NETWORK = """Getting ready...

time="Thu, 26 Nov 2026 17:16:00 UTC" level=fatal msg="Error while authenticating with Stripe: Post "https://x": no such host"
"""  # noqa: E501
NPM = """npm error code ECONNREFUSED
npm error request to https://registry.npmjs.org/@stripe%2fcli failed
npm notice
"""


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (REFUSED, "The key 'rk_test_1' lacks \"Sessions Write\"."),
        (NO_NETWORK, 'Error while authenticating with Stripe: Post "https://x": no such host'),
        (f"the CLI only supports using a secret key\n{NPM}", "the CLI only supports using a secret key"),
        (NPM, "code ECONNREFUSED request to https://registry.npmjs.org/@stripe%2fcli failed"),
        ("", ""),
    ],
)
def test_cause_in_the_output_is_one_line(output: str, cause: str) -> None:
    assert cause_in(output.splitlines()) == cause


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Getting ready...", ""),
        ("Ready! Your webhook signing secret is whsec_1 (^C to quit)", "Stripe events are forwarded to this worker."),
        ("2026-11-26 12:00:00   --> refund.created [evt_1]", ""),
        ("2026-11-26 12:00:00  <--  [503] POST http://x [evt_2]", "Stripe event   an event  evt_2  answered 503"),
        ("\x1b[31m2026\x1b[0m  [ERROR] Failed: refused", "Stripe CLI     2026  [ERROR] Failed: refused"),
    ],
)
def test_line_of_the_cli_is_shown_readable(line: str, shown: str) -> None:
    assert readable(line, {}) == shown


def test_answer_is_shown_with_the_type_of_its_event() -> None:
    types: dict[str, str] = {}
    readable("2026-11-26 12:00:00   --> connect refund.created [evt_1]", types)
    line = readable("2026-11-26 12:00:00  <--  [200] POST http://x/webhook [evt_1]", types)
    assert line == "Stripe event   refund.created  evt_1  answered 200"


def test_stripe_cli_does_not_show_its_environment() -> None:
    assert "sk_test_1" not in repr(StripeCli(("stripe",), {"STRIPE_API_KEY": "sk_test_1"}))
