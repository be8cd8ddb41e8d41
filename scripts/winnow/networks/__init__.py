"""From an architecture and weights to a backbone, whose filters can be taken out.

In come the name of an architecture, or a factory of one's own, and a file of weights, one of torchvision's
(:mod:`winnow.networks.published`) or of one's own (:mod:`winnow.networks.weights`). Out go the weights in one form with
the channel table (:mod:`winnow.networks.backbones`, :mod:`winnow.networks.channels`), a network without some of its
units (:mod:`winnow.networks.surgery`), a file that rebuilds it (:mod:`winnow.networks.models`), and how long it takes
(:mod:`winnow.networks.latency`).
"""
