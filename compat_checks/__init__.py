"""Proof, on the machine at hand, that tfsampled gives TensorFlow's numbers.

One way through, one file per room:

    cases -> problem -> holders -> modes -> observe -> truth -> budget -> check

`cases` is the only list of cases; the command (`python -m compat_checks`) and the
tests both read it. `check.Checker` takes the library under test as a parameter.
"""
