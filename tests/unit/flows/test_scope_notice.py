"""Questions that narrow models cannot answer are noticed before they try."""

from __future__ import annotations

from flows.admission import admit
from flows.scope_notice import fallback_notice, scope_notice
from tests.unit.flows.fakes import PACKAGE, QUESTION, order

NANO_M, NANO_S, BIG = (PACKAGE.get_model(key) for key in ("nano-m", "nano-s", "gpt-5.6"))


def test_a_question_in_scope_needs_no_notice() -> None:
    assert scope_notice(QUESTION, [NANO_M, NANO_S, BIG]) is None
    assert scope_notice("What is love?", [BIG]) is None
    assert scope_notice("What is love?", []) is None


def test_the_notice_names_the_models_and_what_they_can_do_once() -> None:
    notice = scope_notice("What is love?", [NANO_S, NANO_M, BIG]) or ""
    assert notice.startswith("This question is outside what nano-m and nano-s can do: sums and differences")
    assert notice.count("sums and differences") == 1
    assert "For a real answer, configure a model" in notice


def test_a_fallback_is_noticed_only_from_outside_to_narrow() -> None:
    assert fallback_notice(QUESTION, "n", "gpt-5.6", NANO_M) is None
    assert fallback_notice("Why?", "n", "nano-m", NANO_M) is None
    assert fallback_notice("Why?", "n", "nano-m", BIG) is None
    assert fallback_notice("Why?", "n", "gpt-5.6", NANO_M) is not None


def test_an_admitted_order_knows_its_notice() -> None:
    flow = PACKAGE.flows.get("challenge")
    assert admit(order(), flow, PACKAGE).notice(PACKAGE) is None
    assert "nano-m" in (admit(order(prompt="Why?"), flow, PACKAGE).notice(PACKAGE) or "")
