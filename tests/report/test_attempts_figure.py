from looped.report.attempts_figures import solved_by_attempts


def test_a_line_for_each_number_of_loops():
    rows = [
        {"num_loops": loops, "attempts": attempts, "value": attempts / 9, "seed": seed}
        for loops in (8, 16, 32)
        for attempts in (1, 2, 3)
        for seed in (0, 1)
    ]
    more, fewer = (solved_by_attempts(some).count(b'id="line2d') for some in (rows, rows[:6]))
    assert more > fewer
    assert b"attempts" in solved_by_attempts(rows)
