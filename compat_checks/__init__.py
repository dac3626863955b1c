"""Checks on this machine that tfsampled gives TensorFlow's numbers.

`python -m compat_checks` runs every case; the tests run some of the same cases.

    cases/      what to call: CASES, the only list of cases
    run/        makes the arrays of a case and calls tfsampled and TensorFlow with them,
                eagerly, in a `tf.function`, in a v1 Session or under XLA
    judge/      truth.py: the same results in float64, from the formulas
                budget.py: the rule that says how large an error may be
                check.py: runs one case, compares all of it, returns a `Result`
    report/     the results in the terminal, as JSON and as an HTML page
    published/  a command of its own: TensorFlow's published tests, run on tfsampled

For one case the data flow this way:

    Case -> make_problem -> arrays -> modes.run -> results of tfsampled and TensorFlow
         -> compute_truth -> float64 arrays with the scale of their rounding errors
         -> budget.judge  -> a verdict for each array -> Result

`check.Checker` takes the library under test as an argument, so the tests can hand it a
broken one.
"""
