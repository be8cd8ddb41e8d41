"""An experiment's figures, a subject a module; :mod:`winnow.answers.figures.look` is what they share."""
