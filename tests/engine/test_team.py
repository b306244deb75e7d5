"""What a team is made of: where its counters lie, and how its members wait."""

import ast
import threading
import time
from pathlib import Path

import numpy as np
from rnnfast.kernels.recurrence.groups import add_gradients
from rnnfast.kernels.team import team as teams


def test_what_changes_during_a_call_lies_on_lines_of_its_own():
    places = sorted([teams.ARRIVALS, teams.CALLS, teams.MEMBERS])
    assert np.diff(places).min() >= 128 // 8
    assert {teams.BY_UNITS, teams.BASE} <= set(range(teams.MEMBERS, teams.MEMBERS + 16))
    assert min(places) >= 16
    assert teams.TEAM_SIZE - max(places) >= 16


def test_each_kernel_of_a_team_says_where_a_call_begins_and_ends():
    """The pool lets no worker in before `begin_call`, and the caller may free its arrays after `end_call`."""
    count = 0
    for path in Path(teams.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            decorators = map(ast.unparse, getattr(node, "decorator_list", ()))
            if any(decorator.split("(")[0] in ("kernel", "kernel_of") for decorator in decorators):
                if node.args.args[0].arg != "team":
                    continue
                calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
                calls.sort(key=lambda call: (call.lineno, call.col_offset))
                names = [ast.unparse(n.func) for n in calls if "team" in map(ast.unparse, n.args)]
                assert (names[0], names[-1]) == ("begin_call", "end_call"), (node.name, names)
                assert names.count("begin_call") == names.count("end_call") == 1, node.name
                count += 1
    assert count >= 4


def test_the_wait_of_the_caller_for_a_late_member_is_measured():
    total, term = np.zeros(10, np.float32), np.ones(10, np.float32)
    add_gradients(teams.new_team(), 0, total, term)  # compiles
    team = teams.new_team(2)

    def late():
        while not team[teams.ARRIVALS]:
            time.sleep(0)
        time.sleep(0.02)
        add_gradients(team, 1, total, term)

    member = threading.Thread(target=late)
    member.start()
    add_gradients(team, 0, total, term)
    member.join()
    assert 0 < team[teams.WAITED] < 1e12
    assert (total == 2).all()
    alone = teams.new_team()
    add_gradients(alone, 0, total, term)
    assert alone[teams.WAITED] == 0
