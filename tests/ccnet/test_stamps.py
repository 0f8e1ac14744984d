"""A stamp holds while a module's weights are what they were, and no longer."""

import pytest

from ccnet.stamps import Stamp
from tests.ccnet.weight_changes import CHANGES, small_layer


@pytest.mark.parametrize("change", CHANGES)
def test_a_stamp_holds_until_the_weights_change(change):
    layer = small_layer()
    stamp = Stamp(layer)
    assert stamp.holds()
    assert stamp == Stamp(layer)
    change(layer)
    assert not stamp.holds()
    assert stamp != Stamp(layer)
