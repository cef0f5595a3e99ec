"""The state machine of tests/test_stage_machine.py, longer and with new seeds."""

import random
import traceback

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_stage_machine import Machine

from soak.tally import Attack

ROW = "state machine, steps"


def run(attack: Attack) -> None:
    row = attack.rows[ROW]

    class Counted(Machine):
        def check_invariants(self, *arguments, **keywords):
            super().check_invariants(*arguments, **keywords)
            row.tried += 1
            row.held += 1

    options = settings(
        max_examples=2,  # the first is a trivial one
        stateful_step_count=25,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a finding is kept as it is, not made small for hours
        suppress_health_check=list(HealthCheck),
    )
    random.seed(attack.rng.getrandbits(64))
    while not attack.over:
        try:
            run_state_machine_as_test(Counted, settings=options)
        except Exception:
            attack.lose(ROW, "a finding", traceback.format_exc().encode())
