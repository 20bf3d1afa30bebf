"""`effbench claims` prints the ledger of the committed results as text, as one markdown table, as JSON."""

import json

import pytest

from effbench.api.errors import EffbenchError
from effbench.commands.publishing import claims


def test_each_form_has_a_verdict_for_every_claim(capsys):
    claims(as_json=True)
    ledger = json.loads(capsys.readouterr().out)
    claims(form="markdown", as_json=False)
    head, rule, *rows = capsys.readouterr().out.strip().splitlines()
    assert head.startswith("| technique | claim |") and rule.startswith("|---") and len(rows) == len(ledger) > 50
    assert all(row.count(" | ") == head.count(" | ") for row in rows)
    claims(form="text", as_json=False)
    assert capsys.readouterr().out.count("  claim    ") == len(ledger)


def test_an_unknown_form_is_refused_with_those_that_exist():
    with pytest.raises(EffbenchError, match="no format 'html'") as caught:
        claims(form="html", as_json=False)
    assert "markdown" in caught.value.remedy
