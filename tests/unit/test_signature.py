"""The reason for which a signature is rejected."""

from __future__ import annotations

import pytest

from support.recorded import sign
from webhook.events.signature import InvalidDeliveryError, Rejection, verify

SECRET, OTHER = "whsec_signs", "whsec_other"


@pytest.mark.parametrize("secrets", [(SECRET,), (SECRET, OTHER), (OTHER, SECRET)])
def test_old_signature_of_any_secret_is_reported_as_old(secrets: tuple[str, ...]) -> None:
    """Otherwise a wrong clock looks like a wrong secret during a rotation."""
    with pytest.raises(InvalidDeliveryError) as raised:
        verify(b"{}", sign(b"{}", SECRET, 1), secrets)
    assert raised.value.rejection is Rejection.OLD_SIGNATURE


@pytest.mark.parametrize("secrets", [(OTHER,), (OTHER, "whsec_third")])
def test_signature_of_another_secret_is_reported_as_wrong(secrets: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDeliveryError) as raised:
        verify(b"{}", sign(b"{}", SECRET), secrets)
    assert raised.value.rejection is Rejection.WRONG_SIGNATURE
