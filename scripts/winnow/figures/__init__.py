"""An experiment's figures, a subject a module; :mod:`winnow.figures.look` is what they share."""
