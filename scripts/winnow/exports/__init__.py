"""From a judged cell to files that run elsewhere.

In comes a kept network with its description. Out go a folder to take home, with its card
(:mod:`winnow.exports.bundle`), predictions on photographs by what lies in it (:mod:`winnow.exports.prediction`), as a
table (:mod:`winnow.exports.sheets`), and what two networks' predictions say of each other
(:mod:`winnow.exports.comparison`).
"""
