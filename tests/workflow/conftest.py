import pytest

from .checkout import Checkout


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """The small grid, run to its end. Not to be changed: take a copy."""
    checkout = Checkout(tmp_path_factory.mktemp("finished") / "checkout")
    checkout.run()
    return checkout


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of the finished small grid to change and run."""
    return finished.copy(tmp_path / "checkout")
