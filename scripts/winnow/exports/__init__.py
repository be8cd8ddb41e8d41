"""From a judged cell to files that run elsewhere.

In comes a kept network with its description. Out go a folder to take home, with its card
(:mod:`winnow.exports.bundle`), and predictions on photographs by what lies in it (:mod:`winnow.exports.prediction`).
"""
