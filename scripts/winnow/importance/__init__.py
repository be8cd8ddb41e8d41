"""From a store and a backbone to which filters stay.

In come training images and a pretrained network. Out go sufficient statistics of what each filter does a class
(:mod:`winnow.importance.statistics`, :mod:`winnow.importance.gradients`), a score a filter and criterion
(:mod:`winnow.importance.scores`), and masks that keep to a ratio (:mod:`winnow.importance.masks`).
"""
