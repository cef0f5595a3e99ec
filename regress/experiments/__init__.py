"""Experiments: which heads each one needs and how it judges them.

Adding one takes a module with `NAME`, `needs(studies)` and `evaluate(studies, trained)`
(see `zero_shot`), and its line in `EXPERIMENTS`.
"""

#: Modules of the experiments by name, in the order of the paper.
EXPERIMENTS = {
    "single-vs-all": "aqa.regress.experiments.single_vs_all",
    "zero-shot": "aqa.regress.experiments.zero_shot",
    "fine-tune": "aqa.regress.experiments.fine_tune",
}
ALL = "all"
