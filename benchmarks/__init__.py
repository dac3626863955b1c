"""Timings of tfsampled beside TensorFlow's and Keras's, taken in turn in one run.

`python -m benchmarks` runs families of them. A family is a module with

- `TITLE`, a sentence over its table,
- `COLUMNS`, from a column's heading to the format of a row in it, as in
  `{"ours, ms": "{0.ours_ms:.2f}"}`,
- `timings(**options)`, which yields rows: dataclasses of what JSON can hold,
- if there is a chart, `plot(rows, path)`, which writes it,
- if there are options, `OPTIONS`, from the name of an argument of `timings` to those
  of `argparse`: `classes` in the family `fit` is `--fit-classes`.

Its name and module stand in `benchmarks.__main__.FAMILIES`. What must run in a process
of its own (memory, above all) goes through `benchmarks.fresh`.
"""
