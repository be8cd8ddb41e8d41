"""From a mask and a recipe to a cell: a pruned network, trained and judged.

In come a store, a backbone, a mask or what the cell begins with (:mod:`winnow.training.trunks`), and what its spec
says. Out go its metrics, history, predictions, mask and, where it is kept, its network (:mod:`winnow.training.cells`).
:mod:`winnow.training.loop` is the training itself, beside it what it calls on: its steps, the checkpoint from which it
goes on, the choice of an epoch, the network that it learns from (:mod:`winnow.training.distillation`), and the judge.
"""
